"""Explanations that come with the clean pass: attention, and its gradients at the embeddings or the states."""

from collections.abc import Collection
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from attn_lightning.backbone.importance import Importance, importances, small_passes
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.erasure import inference
from attn_lightning.evaluation.explainer import Explainer
from attn_lightning.evaluation.explainers.controls import inverted
from attn_lightning.evaluation.subject import ProgressCallback, Ragged, Subject
from attn_lightning.metrics.per_example import to_array
from attn_lightning.types import AttentionOutput, Batch

_KINDS: dict[str, Importance] = {"gradient": "gradient", "gradient_x_input": "gradient_full", "hidden": "hidden"}
"""What `importances` calls the explainers that differentiate."""

NATIVE = frozenset({"attention", "inverted", *_KINDS})
"""Explainers that `native_explanations` computes together."""


class Attention(Explainer):
    """The model's own attention weights."""

    name: ClassVar[str] = "attention"

    def scores(self, subject: Subject, batch: Batch) -> Tensor:
        """See `Explainer.scores`."""
        with inference(subject.model):
            attention: Tensor = subject.model(batch.tokens, batch.mask).attention
        return attention


class _Differentiated(Explainer):
    """One kind of `attn_lightning.backbone.importance.importances`."""

    def scores(self, subject: Subject, batch: Batch) -> Tensor:
        """See `Explainer.scores`."""
        kind = _KINDS[self.name]
        return importances(subject.model, batch, (kind,))[1][kind]


class Gradient(_Differentiated):
    """`| sum_d e_{t,d} dp_y/de_{t,d} |` at the embeddings with attention held constant, as Jain and Wallace take it."""

    name: ClassVar[str] = "gradient"


class GradientInput(_Differentiated):
    """`| sum_d e_{t,d} dp_y/de_{t,d} |` at the embeddings, where attention moves too."""

    name: ClassVar[str] = "gradient_x_input"


class Hidden(_Differentiated):
    """`| sum_d h_{t,d} dp_y/dh_{t,d} |` at the hidden states, where attention moves too."""

    name: ClassVar[str] = "hidden"


def native_explanations(
    subject: Subject, names: Collection[str], advance: ProgressCallback
) -> tuple[NDArray[np.float64], NDArray[np.int64], dict[str, Ragged]]:
    """The clean predictions and the explanations that come with them, in one pass over the examples.

    Args:
        subject: model and examples.
        names: which of `NATIVE` to compute; without one that differentiates there is no autograd at all.
        advance: called with the number of examples finished since the last call.

    Returns:
        (N, C) float64 probabilities and (N,) int64 labels in the order of the split, and the named explanations, equal
        to what each explainer gives alone.

    Raises:
        ConfigurationError: a name that is not in `NATIVE`.

    Cost: one run of the encoder over the split, and one backward pass through it each for `gradient` and
    `gradient_x_input`.
    """
    unknown = [name for name in names if name not in NATIVE]
    if unknown:
        raise ConfigurationError(f"Expected explainers out of {', '.join(sorted(NATIVE))}, but got {unknown}.")
    kinds = tuple(_KINDS[name] for name in names if name in _KINDS)
    lengths = np.asarray(subject.examples.lengths)
    probabilities = np.full((len(lengths), subject.num_classes), np.nan)
    labels = np.zeros(len(lengths), np.int64)
    found = {name: Ragged.empty(lengths) for name in names}
    # Part by part: a backward pass keeps so much per token that a whole batch would leave the caches of a CPU.
    for batch in (part for whole in subject.batches() for part in small_passes(whole)):
        output, gradients = _clean_pass(subject, batch, kinds)
        scores = {
            "attention": output.attention,
            "inverted": inverted(output.attention, batch.mask),
            **{name: gradients[kind] for name, kind in _KINDS.items() if kind in gradients},
        }
        rows, mask = to_array(batch.rows), to_array(batch.mask)
        # On the CPU in float64: differences of probabilities near 1 are what is measured afterwards.
        probabilities[rows] = to_array(output.logits.cpu().double().softmax(-1))
        labels[rows] = to_array(batch.labels)
        for name, ragged in found.items():
            ragged.put(rows, to_array(scores[name]), mask)
        advance(len(rows))
    return probabilities, labels, found


def _clean_pass(
    subject: Subject, batch: Batch, kinds: tuple[Importance, ...]
) -> tuple[AttentionOutput, dict[str, Tensor]]:
    if kinds:
        return importances(subject.model, batch, kinds)
    with inference(subject.model):
        output: AttentionOutput = subject.model(batch.tokens, batch.mask)
    return output, {}
