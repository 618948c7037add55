"""The attention classifier that every experiment trains: embeddings, encoder, scorer, normalizer, classifier."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from attn_lightning.backbone.encoders import BiLSTM, Encoder
from attn_lightning.backbone.normalizers import Normalizer, Softmax
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.backbone.scorers import AdditiveScorer, Scorer
from attn_lightning.backbone.second_text import (
    PairClassifier,
    PairReader,
    Reading,
    candidates_behind,
    candidates_of,
    query_of,
    with_candidates,
)
from attn_lightning.backbone.segments import FocusNetwork, SegmentClassifier
from attn_lightning.checks import check_choice, check_numbers
from attn_lightning.errors import ConfigurationError
from attn_lightning.numerics import at_least_float32, full_precision, log_mixture
from attn_lightning.types import AttentionOutput, DataSpec

Prediction = Literal["averaged_input", "argmax_segment", "averaged_output"]


class AttentionClassifier(Backbone):
    """Classifier of texts, or of mosaics of segments, with one attention layer.

    `x_t = embedding(w_t)`, `h = encoder(x)`, `s_t = scorer(h_t)`, `a = normalizer(s)`, `c = sum_t a_t h_t`,
    `logits = W c + b`. Two classes get two logits, as any other number of classes does. For segments that are not
    words (`spec.segment_shape`) `x_t` is the segment itself, flattened, and a "token" is a segment.

    A focus network that is cut above its layer 0 averages `tanh(h_t)` in the place of h_t (`Encoder.values`).

    `prediction` says what the classifier g (the linear layer, or `classifier`) is applied to in eval mode:

    - `averaged_input`: `logits = g(sum_t a_t h_t)`;
    - `argmax_segment`: `logits = g(h_i)` and `context = h_i` for the token i with the largest weight, the first of
      those that tie; it has no gradient for the attention;
    - `averaged_output`: `logits = log sum_t a_t softmax(g(h_t))`, with `context = sum_t a_t h_t`.

    While training it is always the first: methods such as `HardAttention` train for the others.

    Scores, attention, context and logits are float32 even under autocast, and there is no dropout after the encoder:
    running `attend` again on the same scores gives the same output, also in training mode.

    Args:
        spec: what the data is like; the data module gives it.
        encoder: class of the encoder (`BiLSTM`, `CNN`, `Average`, `Transformer`, `Pretrained` or your own) and its
            options.
        scorer: class of the scorer (`AdditiveScorer`, `ScaledDotScorer` or your own) and its options.
        normalizer: class of the normalizer (`Softmax`, `Sparsemax`, `Entmax15`, `EntmaxAlpha`, `Spherical`, `TopK`,
            `GumbelTopK`, `Uniform` or your own) and its options.
        focus: class of a focus network (`FullyConnectedFocus`, `ConvolutionalFocus` or your own) and its options: its
            layers then are the encoder and the scorer, in the place of the two above.
        classifier: class of the classifier g (`FullyConnectedClassifier`, `ConvolutionalClassifier` or your own) and
            its options; null for one linear layer.
        prediction: averaged_input, argmax_segment or averaged_output, in validation, test and prediction.
        reading: of the second text in data of pairs: by the `shared` encoder, by one of its `own`, or `joint` with the
            first text in one pass of a pretrained encoder.
        freeze_embeddings: keep the word vectors as they start.
        freeze_scorer: keep the scorer at its random start: attention that cannot learn what to look at, a control
            beside `Uniform` (Wiegreffe and Pinter 2019). The encoder is still trained, also through the scores. With a
            normalizer that ignores the scores the scorer is never trained.
        embedding_dropout: share of embedding entries dropped while training, in [0, 1).
        encoder_dropout: share of hidden state entries dropped while training, in [0, 1).

    Raises:
        ConfigurationError: the data is neither text nor segments, has fewer than two classes, or its word vectors do
            not fit; an argument is out of its range.
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
        focus: Callable[[tuple[int, ...]], FocusNetwork] | None = None,
        classifier: Callable[[tuple[int, ...], int], SegmentClassifier] | None = None,
        prediction: Prediction = "averaged_input",
        reading: Reading = "shared",
    ) -> None:
        super().__init__()
        _check_spec(spec)
        dropout = {"embedding_dropout": embedding_dropout, "encoder_dropout": encoder_dropout}
        check_numbers(at_least=0, below=1, advice="0 drops nothing", **dropout)
        check_choice(choices=get_args(Prediction), prediction=prediction)
        check_choice(choices=get_args(Reading), reading=reading)
        if spec.segment_shape and freeze_embeddings:
            raise ConfigurationError(
                "Expected `freeze_embeddings` to be false for segments, which have no word vectors, but got true; "
                "leave it out."
            )
        # Word vectors are drawn before the encoder's weights. Words that are kept by their letters have none.
        self.embedding = nn.Identity() if spec.vocabulary else _embedding(spec).requires_grad_(not freeze_embeddings)
        # The order in which parts are made is the order of their random draws: another one would change every seeded
        # run.
        network = None if focus is None else focus(spec.segment_shape or (spec.embedding_size,))
        self.encoder: Encoder = encoder(spec.embedding_size) if network is None else network.encoder
        own_input = self.encoder.bind(spec)
        if own_input is not None:
            self.embedding = own_input.requires_grad_(not freeze_embeddings)
        elif spec.vocabulary:
            raise ConfigurationError(
                "Expected an encoder that reads the letters of words (Pretrained) for data that keeps every word, but "
                f"got {type(self.encoder).__name__}; use `--data.unknown=token`."
            )
        self.normalizer = normalizer()
        # A parameter that never gets a gradient would make DDP wait for it.
        trained = self.normalizer.uses_scores and not freeze_scorer
        scores: Scorer = scorer(self.encoder.output_size) if network is None else network.scorer
        self.scorer = scores.requires_grad_(trained)
        self.classifier: nn.Module = (
            nn.Linear(self.encoder.output_size, spec.num_classes)
            if classifier is None
            else classifier(self.encoder.output_shape, spec.num_classes)
        )
        self.pair: PairReader | None = None
        self.num_candidates = 0
        if spec.has_question:
            self._read_pairs(spec, None if reading != "own" else encoder(spec.embedding_size), reading == "joint")
        self.prediction: Prediction = prediction
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.encoder_dropout = nn.Dropout(encoder_dropout)

    def _read_pairs(self, spec: DataSpec, own: Encoder | None, joint: bool) -> None:
        """Make encoder, scorer and classifier take a second text."""
        special = type(self.classifier) is not nn.Linear or type(self).attend is not AttentionClassifier.attend
        if special or (own is not None and own.bind(spec) is not None):
            raise ConfigurationError(
                "Expected the stock classifier, and an encoder of words or one that is shared, for data of pairs, but "
                f"got {type(self).__name__} with {type(self.classifier).__name__} and {type(own).__name__}; use "
                "AttentionClassifier, and `--model.backbone.reading=shared`."
            )
        self.num_candidates = spec.num_classes if spec.has_candidates else 0
        self.pair = PairReader(self.encoder, own, joint, self.num_candidates)
        # Before the optimizer is made, because it adds a weight or takes one away.
        self.scorer.condition()
        self.classifier = PairClassifier(self.encoder.output_size, spec.num_classes)

    def embed(self, tokens: Tensor) -> Tensor:
        """(B, T) int64 word ids, or (B, T, ...) segments, to (B, T, E) vectors, with dropout while training."""
        embeddings: Tensor = self.embedding(tokens)
        dropped = self.encoder.dropped(embeddings, self.embedding_dropout)
        if self.num_candidates and dropped is not embeddings:
            # Dropout must not take an answer away, least of all the right one.
            return torch.cat([dropped[:, : -self.num_candidates], embeddings[:, -self.num_candidates :]], 1)
        return dropped

    def encode(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """(B, T, E) to (B, T, D) states, 0 at padding, with dropout while training.

        Half-precision states become float32 here, once, so that each later `attend` finds them ready.
        """
        read: Callable[[Tensor, Tensor], Tensor] = self.encoder if self.pair is None else self.pair
        # Dropout here and not in `attend`: methods run the head several times and compare, which noise would drown.
        hidden: Tensor = self.encoder_dropout(at_least_float32(read(embeddings, mask)))
        if self.num_candidates:
            hidden = with_candidates(hidden, candidates_behind(embeddings, self.num_candidates))
        return hidden

    def token_attention(self, embeddings: Tensor, mask: Tensor) -> Tensor | None:
        """See `Encoder.token_attention`."""
        return (self.encoder if self.pair is None else self.pair).token_attention(embeddings, mask)

    def score(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) to (B, T) raw attention scores."""
        scores: Tensor = self.scorer(hidden, mask) if self.pair is None else self.scorer(hidden, mask, query_of(hidden))
        return scores

    def attend(self, hidden: Tensor, scores: Tensor, mask: Tensor, attention: Tensor | None = None) -> AttentionOutput:
        """See `Backbone.attend`."""
        # Attention in bfloat16 has steps of 0.4 %: perturbations of scores would be lost between them.
        with full_precision(scores.device.type):
            hidden, scores = at_least_float32(hidden), at_least_float32(scores)
            # Given attention takes the place of the normalizer's: methods replace it, importances hold it constant.
            weights: Tensor = self.normalizer(scores, mask) if attention is None else attention.to(hidden.dtype)
            context, logits = self._classified(hidden, weights)
        return AttentionOutput(logits, weights, scores, hidden, context, mask)

    def _classified(self, hidden: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) context and (B, C) logits by the rule of prediction."""
        values = self.encoder.values(hidden)
        rule: Prediction = "averaged_input" if self.training else self.prediction
        if rule == "argmax_segment":
            context = values[torch.arange(len(values), device=values.device), weights.argmax(1)]
        else:
            # A batched product, not `(weights * values).sum(1)`, which would write (B, T, D) numbers and read them
            # again.
            context = torch.bmm(weights.unsqueeze(1), values).squeeze(1)
        # As extra arguments, so that a classifier of one text need not know that there are pairs.
        second = () if self.pair is None else (query_of(hidden),)
        if self.num_candidates:
            second = (*second, candidates_of(hidden, self.num_candidates))
        if rule != "averaged_output":
            return context, self.classifier(context, *second)
        repeated = (part.repeat_interleave(values.shape[1], 0) for part in second)
        of_each: Tensor = self.classifier(values.flatten(0, 1), *repeated).unflatten(0, weights.shape)
        # A mixture of probabilities, not of logits: what the model says if it looks at token t with probability a_t.
        return context, log_mixture(weights, of_each.log_softmax(-1))

    @property
    def columns_behind(self) -> int:
        """How many of the last columns of the states `attend` reads beside the text: q, and candidates before it."""
        return 0 if self.pair is None else 1 + self.num_candidates

    @property
    def has_linear_head(self) -> bool:
        """Whether `logits = W sum_t a_t h_t + b` in either mode, so that the head has closed forms.

        A subclass with an `attend` of its own may average something else than the hidden states.
        """
        # By identity of the functions: a subclass that overrides one may do anything, and then the formula is not
        # known.
        averages_states = type(self.encoder).values is Encoder.values and self.prediction == "averaged_input"
        return averages_states and type(self.classifier) is nn.Linear and self.pair is None

    def resources(self) -> Mapping[str, str]:
        """See `Encoder.resources`."""
        return self.encoder.resources()

    def scaled(self, embeddings: Tensor, factors: Tensor) -> Tensor:
        """See `Encoder.scaled`."""
        return self.encoder.scaled(embeddings, factors)

    def perturbable(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """See `Encoder.perturbable`."""
        return self.encoder.perturbable(embeddings, mask)

    def know(self, vocabulary: Sequence[str]) -> None:
        """Learn the words of a text that training never saw; only an encoder that reads letters can."""
        if (learn := getattr(self.embedding, "know", None)) is not None:
            learn(vocabulary)

    def embedding_parameters(self) -> list[nn.Parameter]:
        """The word vectors, for an optimizer that treats them apart; none for segments."""
        return list(self.embedding.parameters())

    def attention_parameters(self) -> list[nn.Parameter]:
        """What makes attention, for an optimizer that spares it from weight decay (it would pull it to uniform)."""
        return [*self.scorer.parameters(), *self.normalizer.parameters()]


def _embedding(spec: DataSpec) -> nn.Module:
    """Word ids to word vectors; segments to themselves, flattened."""
    if spec.segment_shape:
        return nn.Flatten(start_dim=2)
    # `_weight`, since torch would otherwise draw a table first: random numbers, and time for a large vocabulary.
    return nn.Embedding(spec.vocabulary_size, spec.embedding_size, padding_idx=0, _weight=_embedding_table(spec))


def _embedding_table(spec: DataSpec) -> Tensor:
    """(vocabulary_size, E) initial word vectors, row 0 zero: a copy of those given, or drawn from N(0, 0.1^2).

    A deviation of 0.1 is about that of trained word vectors. Torch's default of 1 gives a 300-dimensional word the
    norm 17, which drives the LSTM's gates into saturation and drowns a perturbation of the usual radius.
    """
    if spec.embedding_weights is not None:
        return spec.embedding_weights.clone()
    table = torch.randn(spec.vocabulary_size, spec.embedding_size) * 0.1
    # Padding is zero, so that it is told from a word where only embeddings are at hand.
    table[0] = 0.0
    return table


def _check_spec(spec: DataSpec) -> None:
    check_numbers(at_least=2, advice="add labels", num_classes=spec.num_classes)
    if spec.segment_shape:
        _check_segments(spec)
        return
    if spec.vocabulary_size < 2:
        raise ConfigurationError(
            "Expected data of AttentionClassifier to be text with a vocabulary of at least one word or segments with a "
            f"`segment_shape`, but got `vocabulary_size` {spec.vocabulary_size} and no `segment_shape`; state one."
        )
    check_numbers(at_least=1, embedding_size=spec.embedding_size)
    _check_embedding_weights(spec)


def _check_segments(spec: DataSpec) -> None:
    if spec.vocabulary_size or spec.embedding_weights is not None:
        raise ConfigurationError(
            f"Expected data with `segment_shape` {spec.segment_shape} to have no words, but got `vocabulary_size` "
            f"{spec.vocabulary_size} or `embedding_weights`; use 0 and None, or no `segment_shape`."
        )
    size = math.prod(spec.segment_shape)
    if min(spec.segment_shape) < 1 or size != spec.embedding_size:
        raise ConfigurationError(
            f"Expected `embedding_size` to be the {size} numbers of a segment of shape {spec.segment_shape}, but got "
            f"{spec.embedding_size}; both are at least 1."
        )


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
