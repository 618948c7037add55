"""What a model must offer so that every method and every measurement works on it: four functions."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from attn_lightning.errors import ConfigurationError
from attn_lightning.numerics import at_least_float32, full_precision
from attn_lightning.types import AttentionOutput


class Backbone(nn.Module):
    """An attention model in four stages, `embed -> encode -> score -> attend`.

    Subclass it (or `AttentionClassifier`) to plug a model of your own into every method:

        class MyBackbone(Backbone):
            def __init__(self, spec: DataSpec, width: int = 64) -> None: ...
            def embed(self, tokens): ...
            def encode(self, embeddings, mask): ...
            def score(self, hidden, mask): ...
            def attend(self, hidden, scores, mask, attention=None): ...

    The constructor's first argument is the `DataSpec`; all others come from the configuration.
    """

    def embed(self, tokens: Tensor) -> Tensor:
        """(B, T) token ids (or (B, T, ...) segments) to (B, T, E) embeddings."""
        raise NotImplementedError

    def encode(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """(B, T, E) to (B, T, D) hidden states: the expensive part. States of real tokens never depend on padding."""
        raise NotImplementedError

    def score(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) to (B, T) raw float32 attention scores, finite everywhere."""
        raise NotImplementedError

    def attend(self, hidden: Tensor, scores: Tensor, mask: Tensor, attention: Tensor | None = None) -> AttentionOutput:
        """Normalize the scores, average the hidden states and classify: all that a score perturbation runs again.

        Args:
            hidden: (B, T, D).
            scores: (B, T).
            mask: (B, T) bool.
            attention: (B, T) weights to use instead of the normalized scores, rows summing to 1 and 0 at padding.

        Returns:
            The output without `embeddings`.
        """
        raise NotImplementedError

    def forward(self, tokens: Tensor, mask: Tensor, attention: Tensor | None = None) -> AttentionOutput:
        """All four stages; `attention` replaces the model's own weights where given.

        Scores and all that follows are computed in float32 also under autocast, whatever the model itself does.
        """
        embeddings = self.embed(tokens)
        hidden = at_least_float32(self.encode(embeddings, mask))
        with full_precision(hidden.device.type):
            output = self.attend(hidden, self.checked_scores(hidden, mask), mask, attention)
        return replace(output, embeddings=embeddings)

    def know(self, vocabulary: Sequence[str]) -> None:
        """Learn the words of texts that training never saw, by id; only an encoder that reads letters can."""

    def scaled(self, embeddings: Tensor, factors: Tensor) -> Tensor:
        """(..., E) embeddings, each a share of itself by (..., 1) factors; 0 takes the word away."""
        return embeddings * factors

    def perturbable(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Which numbers of (B, T, E) embeddings noise may change: (B, T) bool for whole words, or (B, T, E)."""
        return mask

    def token_attention(self, embeddings: Tensor, mask: Tensor) -> Tensor | None:
        """(L, B, T, T) attention inside the encoder, see `Encoder.token_attention`; None where it has none."""
        return None

    def checked_scores(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """What `score` gives, refused unless there is one number per token.

        Raises:
            ConfigurationError: another shape, which the mask would silently broadcast to something else.
        """
        scores = self.score(hidden, mask)
        if scores.shape != mask.shape:
            raise ConfigurationError(
                f"Expected `score` of {type(self).__name__} to return one number per token, a tensor of shape (B, T) = "
                f"{tuple(mask.shape)}, but got {tuple(scores.shape)}; a last axis of 1 goes with `squeeze(-1)`."
            )
        return scores
