"""Models, texts and settings so small that a method shows what it does within a moment."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from attn_lightning.backbone.protocol import Backbone
from attn_lightning.methods.base import Method
from attn_lightning.numerics import masked_softmax
from attn_lightning.step import TrainStep
from attn_lightning.types import AttentionOutput, Batch, DataSpec

SPEC = DataSpec(3, 30, 5, ("a", "b", "c"))


@dataclass(frozen=True)
class Settings:
    """With what options a method shows within a moment what it does.

    Attributes:
        options: of the method in a training of `num_epochs`.
        num_epochs: epochs of that training.
        descent: options with which twenty small steps along the gradient lower the term.
        any_model: whether it trains a model whose parts have no names that it could ask for.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    num_epochs: int = 2
    descent: Mapping[str, Any] = field(default_factory=dict)
    any_model: bool = True


SETTINGS: Mapping[str, Settings] = {
    "InformationBottleneck": Settings({"warmup_epochs": 1, "num_rounds": 1}, num_epochs=3),
    "RandomAttentionPretraining": Settings({"num_pretraining_epochs": 1}, any_model=False),
    # The gradient of a divergence from a constant prediction follows the term only where the radius is large.
    **{name: Settings(descent={"epsilon": 5.0}) for name in ("WordRP", "WordAT", "WordVAT")},
    **{name: Settings(descent={"epsilon": 15.0}) for name in ("WordIAT", "WordIVAT")},
}
"""By name of the method; one that is not here takes its own defaults."""


def settings_of(make: Callable[..., Method]) -> Settings:
    """Those of a class of methods; the defaults for one that has none, and for any other function."""
    return SETTINGS.get(getattr(make, "__name__", ""), Settings())


class SmallModel(Backbone):
    """A user's own model: four functions, no parts of the package, nothing that a method could expect by name."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.table = nn.Embedding(spec.vocabulary_size, spec.embedding_size)
        self.mix = nn.Linear(spec.embedding_size, 7)
        self.query = nn.Parameter(torch.randn(7))
        self.output = nn.Linear(7, spec.num_classes)

    def embed(self, tokens: Tensor) -> Tensor:
        """See `Backbone.embed`."""
        embeddings: Tensor = self.table(tokens)
        return embeddings

    def encode(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """See `Backbone.encode`; a state sees the words before it."""
        return torch.tanh(self.mix(embeddings.cumsum(1)))

    def score(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """See `Backbone.score`."""
        return hidden @ self.query

    def attend(self, hidden: Tensor, scores: Tensor, mask: Tensor, attention: Tensor | None = None) -> AttentionOutput:
        """See `Backbone.attend`."""
        attention = masked_softmax(scores, mask) if attention is None else attention
        context = (attention.unsqueeze(-1) * hidden).sum(1)
        return AttentionOutput(self.output(context), attention, scores, hidden, context, mask)


def small_model(kind: type[Backbone], required: type[Backbone] = Backbone) -> Backbone:
    """A model with weights so strong that a perturbation of length 1 matters; of the required class if `kind` is not.

    Args:
        kind: `SmallModel` or `AttentionClassifier`.
        required: what a method asks for.
    """
    torch.manual_seed(0)
    made: Any = kind if issubclass(kind, required) else required
    model: Backbone = made(SPEC)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return model


def small_batch(size: int = 4, length: int = 6, seed: int = 1) -> Batch:
    """Texts of 3 words and more, with labels and rationales."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.arange(size) % (length - 2) + 3
    mask = torch.arange(length) < lengths[:, None]
    tokens = torch.randint(1, SPEC.vocabulary_size, (size, length), generator=generator) * mask
    labels = torch.randint(0, SPEC.num_classes, (size,), generator=generator)
    rationale = mask & (torch.rand(size, length, generator=generator) < 0.4)
    return Batch(tokens, mask, labels, torch.arange(size), rationale, rationale.any(1))


def rows_of(batch: Batch, rows: Tensor) -> Batch:
    """These examples, in this order."""
    return Batch(*(None if part is None else part[rows] for part in batch))  # type: ignore[arg-type]


def small_step(model: Backbone, batch: Batch, output: AttentionOutput | None = None) -> TrainStep:
    """A step in the middle of a training."""
    output = model(batch.tokens, batch.mask) if output is None else output
    return TrainStep(model, batch, output, _task_loss, progress=0.5)


def _task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, labels, reduction="none")


def pass_from(model: Backbone, embeddings: Tensor, mask: Tensor) -> AttentionOutput:
    """A clean pass that begins at these word vectors."""
    hidden = model.encode(embeddings, mask)
    return replace(model.attend(hidden, model.score(hidden, mask), mask), embeddings=embeddings)


def noise_of_places(like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Noise that belongs to the places of a text, whatever else is in the batch: stands in for `torch.randn_like`."""
    columns = torch.arange(like.shape[1], dtype=torch.float64).reshape(1, -1, *(1,) * (like.dim() - 2))
    return torch.sin(3.0 * columns + 1.0).to(like.device, dtype or like.dtype).expand_as(like).clone()
