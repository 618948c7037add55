"""A selector of words and a student that sees nothing but the words that were selected."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import BiLSTM, Encoder
from attn_lightning.backbone.normalizers import GumbelTopK, Normalizer
from attn_lightning.backbone.scorers import AdditiveScorer, Scorer
from attn_lightning.checks import check_numbers
from attn_lightning.errors import ConfigurationError
from attn_lightning.numerics import at_least_float32, full_precision
from attn_lightning.types import AttentionOutput, DataSpec


class Student(nn.Module):
    """`logits = W relu(V c + b) + d`: what the student makes of the mean of the selected words.

    Args:
        input_size: E, size of a word vector.
        hidden_size: rows of V.
        num_classes: C.
    """

    def __init__(self, input_size: int, hidden_size: int, num_classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(input_size, hidden_size)
        self.output = nn.Linear(hidden_size, num_classes)

    def forward(self, context: Tensor) -> Tensor:
        """(..., E) means to (..., C) logits."""
        logits: Tensor = self.output(F.relu(self.hidden(context)))
        return logits


class WordSelector(AttentionClassifier):
    """Selector of k words and student that sees only them: the model of an explainer of another, trained one.

    The selector reads the whole text, the student knows of it nothing but the vectors of the selected words:

        h = encoder(x),    s_t = scorer(h_t),    a = normalizer(s),    c = sum_t a_t x_t,    logits = student(c)

    x_t is the vector of word t alone, so that no state carries a word to the place of another one, as those of an LSTM
    do. Selector and student share the word vectors. A state in `AttentionOutput.hidden` is h_t followed by x_t, D + E
    numbers; `context` is the mean of the selected x_t.

    Source: selector and student of Chen et al. 2018, https://arxiv.org/abs/1802.07814, whose student for words is this
    one; their selector is a CNN (`--model.backbone.encoder CNN`).

    Cost: that of `AttentionClassifier`, and D + E numbers per state.

    Args:
        spec: what the data is like; the data module gives it. Pairs of texts are refused.
        encoder: class of the selector's encoder and its options.
        scorer: class of the scorer and its options.
        normalizer: class of the normalizer and its options: `GumbelTopK` draws the words while training, `TopK` does
            not; other normalizers do not select.
        student_size: hidden units of the student, at least 1.
        freeze_embeddings: keep the word vectors as they start.

    Raises:
        ConfigurationError: the data is of pairs, the encoder reads something else than word vectors, or see
            `AttentionClassifier`.
    """

    def __init__(
        self,
        spec: DataSpec,
        encoder: Callable[[int], Encoder] = BiLSTM,
        scorer: Callable[[int], Scorer] = AdditiveScorer,
        normalizer: Callable[[], Normalizer] = GumbelTopK,
        student_size: int = 250,
        freeze_embeddings: bool = False,
    ) -> None:
        check_numbers(self, at_least=1, student_size=student_size)
        if spec.has_question or spec.vocabulary:
            what = "pairs of texts" if spec.has_question else "words that are kept by their letters"
            raise ConfigurationError(
                f"Expected data of single texts with word vectors, or of segments, for WordSelector, but got {what}: "
                "its student sees the vectors of selected words alone; use other data or AttentionClassifier."
            )
        super().__init__(spec, encoder, scorer, normalizer, freeze_embeddings)
        self.classifier: nn.Module = Student(spec.embedding_size, student_size, spec.num_classes)

    def encode(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """(B, T, E) to (B, T, D + E): what the selector knows of a word, and its vector; 0 at padding."""
        states = super().encode(embeddings, mask)
        # Side by side in one tensor: the signatures stay those of every backbone, and methods need not know.
        return torch.cat([states, embeddings.to(states.dtype).masked_fill(~mask.unsqueeze(-1), 0.0)], dim=-1)

    def score(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D + E) to (B, T) raw scores of the selector."""
        return super().score(hidden[..., : self.encoder.output_size], mask)

    def attend(self, hidden: Tensor, scores: Tensor, mask: Tensor, attention: Tensor | None = None) -> AttentionOutput:
        """See `Backbone.attend`."""
        with full_precision(scores.device.type):
            hidden, scores = at_least_float32(hidden), at_least_float32(scores)
            weights: Tensor = self.normalizer(scores, mask) if attention is None else attention.to(hidden.dtype)
            # The student must see the words alone: states of the selector could tell it the answer by themselves.
            words = hidden[..., self.encoder.output_size :]
            context = torch.bmm(weights.unsqueeze(1), words).squeeze(1)
            logits = self.classifier(context)
        return AttentionOutput(logits, weights, scores, hidden, context, mask)

    @property
    def has_linear_head(self) -> bool:
        """False: the student has a hidden layer, and reads a part of the states."""
        return False

    def attention_parameters(self) -> list[nn.Parameter]:
        """The selector, encoder included: random attention in its place leaves it nothing to learn."""
        return [*self.encoder.parameters(), *super().attention_parameters()]

    def classifier_parameters(self) -> list[nn.Parameter]:
        """The student, word vectors included: what stands still when it is fixed."""
        return [*self.embedding_parameters(), *self.classifier.parameters()]
