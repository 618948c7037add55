"""The attention classifier that every experiment trains: embeddings, encoder, scorer, normalizer, linear layer."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attn_lightning.backbone.encoders import BiLSTM, Encoder
from attn_lightning.backbone.normalizers import Normalizer, Softmax
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.backbone.scorers import AdditiveScorer, Scorer
from attn_lightning.errors import ConfigurationError
from attn_lightning.numerics import at_least_float32, full_precision
from attn_lightning.types import AttentionOutput, DataSpec


class AttentionClassifier(Backbone):
    """Text classifier with one attention layer.

    `x_t = embedding(w_t)`, `h = encoder(x)`, `s_t = scorer(h_t)`, `a = normalizer(s)`, `c = sum_t a_t h_t`,
    `logits = W c + b`. Two classes get two logits, as any other number of classes does.

    Scores, attention, context and logits are float32 even under autocast, and there is no dropout after the encoder:
    running `attend` again on the same scores gives the same output, also in training mode.

    Args:
        spec: what the data is like; the data module gives it.
        encoder: class of the encoder (`BiLSTM`, `CNN`, `Average` or your own) and its options.
        scorer: class of the scorer (`AdditiveScorer`, `ScaledDotScorer` or your own) and its options.
        normalizer: class of the normalizer (`Softmax`, `Sparsemax`, `Entmax15`, `EntmaxAlpha`, `Spherical`, `TopK`,
            `GumbelTopK`, `Uniform` or your own) and its options.
        freeze_embeddings: keep the word vectors as they start.
        freeze_scorer: keep the scorer at its random start: attention that cannot learn what to look at, a control
            beside `Uniform` (Wiegreffe and Pinter 2019). The encoder is still trained, also through the scores. With a
            normalizer that ignores the scores the scorer is never trained.
        embedding_dropout: share of embedding entries dropped while training, in [0, 1).
        encoder_dropout: share of hidden state entries dropped while training, in [0, 1).

    Raises:
        ConfigurationError: the data is not text, has fewer than two classes, or its word vectors do not fit.
    """

    def __init__(
        self,
        spec: DataSpec,
        encoder: Callable[[int], Encoder] = BiLSTM,
        scorer: Callable[[int], Scorer] = AdditiveScorer,
        normalizer: Callable[[], Normalizer] = Softmax,
        freeze_embeddings: bool = False,
        freeze_scorer: bool = False,
        embedding_dropout: float = 0.0,
        encoder_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check_spec(spec)
        _check_rates(embedding_dropout=embedding_dropout, encoder_dropout=encoder_dropout)
        self.embedding = nn.Embedding(
            spec.vocabulary_size, spec.embedding_size, padding_idx=0, _weight=_embedding_table(spec)
        ).requires_grad_(not freeze_embeddings)
        self.encoder = encoder(spec.embedding_size)
        self.normalizer = normalizer()
        # A parameter that never gets a gradient would make DDP wait for it.
        trained = self.normalizer.uses_scores and not freeze_scorer
        self.scorer = scorer(self.encoder.output_size).requires_grad_(trained)
        self.classifier = nn.Linear(self.encoder.output_size, spec.num_classes)
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.encoder_dropout = nn.Dropout(encoder_dropout)

    def embed(self, tokens: Tensor) -> Tensor:
        """(B, T) int64 word ids to (B, T, E) word vectors, with dropout while training."""
        embeddings: Tensor = self.embedding_dropout(self.embedding(tokens))
        return embeddings

    def encode(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """(B, T, E) to (B, T, D) states, 0 at padding, with dropout while training.

        Half-precision states become float32 here, once, so that each later `attend` finds them ready.
        """
        hidden: Tensor = self.encoder_dropout(at_least_float32(self.encoder(embeddings, mask)))
        return hidden

    def score(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) to (B, T) raw attention scores."""
        scores: Tensor = self.scorer(hidden, mask)
        return scores

    def attend(self, hidden: Tensor, scores: Tensor, mask: Tensor, attention: Tensor | None = None) -> AttentionOutput:
        """See `Backbone.attend`."""
        with full_precision(scores.device.type):
            hidden, scores = at_least_float32(hidden), at_least_float32(scores)
            weights: Tensor = self.normalizer(scores, mask) if attention is None else attention.to(hidden.dtype)
            context = torch.bmm(weights.unsqueeze(1), hidden).squeeze(1)
            logits: Tensor = self.classifier(context)
        return AttentionOutput(logits, weights, scores, hidden, context, mask)

    def embedding_parameters(self) -> list[nn.Parameter]:
        """The word vectors, for an optimizer that treats them apart."""
        return list(self.embedding.parameters())

    def attention_parameters(self) -> list[nn.Parameter]:
        """What makes attention, for an optimizer that spares it from weight decay (it would pull it to uniform)."""
        return [*self.scorer.parameters(), *self.normalizer.parameters()]


def _embedding_table(spec: DataSpec) -> Tensor:
    """(vocabulary_size, E) initial word vectors, row 0 zero: a copy of those given, or drawn from N(0, 0.1^2).

    A deviation of 0.1 is about that of trained word vectors. Torch's default of 1 gives a 300-dimensional word the
    norm 17, which drives the LSTM's gates into saturation and drowns a perturbation of the usual radius.
    """
    if spec.embedding_weights is not None:
        return spec.embedding_weights.clone()
    table = torch.randn(spec.vocabulary_size, spec.embedding_size) * 0.1
    table[0] = 0.0
    return table


def _check_spec(spec: DataSpec) -> None:
    if spec.num_classes < 2:
        raise ConfigurationError(f"Expected `num_classes` to be 2 or more, but got {spec.num_classes}; add labels.")
    if spec.vocabulary_size < 2 or spec.segment_shape:
        raise ConfigurationError(
            "Expected the data of AttentionClassifier to be text with a vocabulary of at least one word, but got "
            f"`vocabulary_size` {spec.vocabulary_size} and `segment_shape` {spec.segment_shape}; "
            "use another backbone for segments that are not words."
        )
    if spec.embedding_size < 1:
        raise ConfigurationError(f"Expected `embedding_size` to be 1 or more, but got {spec.embedding_size}.")
    _check_embedding_weights(spec)


def _check_embedding_weights(spec: DataSpec) -> None:
    expected = (spec.vocabulary_size, spec.embedding_size)
    if spec.embedding_weights is None:
        return
    if tuple(spec.embedding_weights.shape) != expected:
        raise ConfigurationError(
            f"Expected `embedding_weights` to be of shape {expected}, but got {tuple(spec.embedding_weights.shape)}; "
            "give one row per word of the vocabulary, padding included."
        )
    if spec.embedding_weights[0].any():
        raise ConfigurationError("Expected row 0 of `embedding_weights` (padding) to be zero, but got other values.")


def _check_rates(**rates: float) -> None:
    for name, rate in rates.items():
        if not 0 <= rate < 1:
            raise ConfigurationError(f"Expected `{name}` to be in [0, 1), but got {rate}; use 0 for no dropout.")
