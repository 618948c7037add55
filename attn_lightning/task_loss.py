"""The loss of the task itself, which every method adds to or replaces, and the weights of its classes."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attn_lightning.errors import ConfigurationError, NumericalError
from attn_lightning.types import AttentionOutput


def cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Per-example task loss `-w_y log softmax(z)_y`.

    Args:
        logits: (B, C).
        labels: (B,) int64 in [0, C).
        class_weights: (C,) factor of every class, or None for 1.

    Returns:
        (B,) float32 in nats, at least 0; no mean, so that methods can weight examples.
    """
    # float32 also for half precision: its logarithm of a small probability has three digits.
    return nn.functional.cross_entropy(logits.float(), labels, weight=class_weights, reduction="none")


def class_weights_from_counts(counts: Sequence[int], mode: Literal["none", "positive", "balanced"]) -> Tensor | None:
    """Weight of every class in the task loss.

    Args:
        counts: training examples per class; a class without any, which only `balanced` allows, has the weight 1.
        mode: "none"; "positive", the published binary recipe: 1 for class 0 and `N_0 / N_1` for class 1;
            "balanced": `N / (C N_c)` for every class, C counting those that have examples.

    Returns:
        (C,) float32, or None for "none".

    Raises:
        ConfigurationError: "positive" with other than two classes.
    """
    if mode == "none":
        return None
    totals = torch.tensor(counts, dtype=torch.float32)
    if mode == "balanced":
        return torch.where(totals > 0, totals.sum() / (torch.count_nonzero(totals) * totals), 1.0)
    # The published recipe is for two classes; which of several would be the positive one is not said.
    if len(counts) != 2:
        raise ConfigurationError(
            f"Expected 2 classes for `class_weights: positive`, but got {len(counts)}; use `balanced` or `none`."
        )
    return torch.stack([torch.ones(()), totals[0] / totals[1]])


def class_counts(datamodule: Any) -> list[int]:
    """Training examples per class whose labels are shown, in the order of the classes, as the manifest says."""
    manifest = getattr(datamodule, "manifest", None)
    if manifest is None:
        raise ConfigurationError(
            "Expected a data module with a `manifest` that counts the training examples per class for "
            f"`class_weights`, but {type(datamodule).__name__} has none; use `class_weights: none`."
        )
    return list(manifest.get("labeled", manifest["splits"]["train"])["classes"].values())


def not_finite(parts: Mapping[str, Tensor], step: int, epoch: int) -> NumericalError:
    """The error of an objective that became NaN or infinite: it names the step and the value of every part.

    Args:
        parts: () values of the task loss and of the terms, by name.
        step: of the run.
        epoch: of the run.
    """
    values = ", ".join(f"{name} = {value.item():g}" for name, value in parts.items())
    return NumericalError(
        f"Expected a finite loss, but got {values} at step {step} of epoch {epoch}; lower `model.learning_rate`, the "
        "weight or epsilon of the method, or train in float32."
    )


def finite(output: AttentionOutput, split: str, step: int) -> AttentionOutput:
    """The output, if it can be measured: of NaN every metric would be a number that means nothing.

    Args:
        output: of a model.
        split: of the data.
        step: of the run, for the message.

    Raises:
        NumericalError: its logits are not finite.
    """
    if not torch.isfinite(output.logits).all():
        raise NumericalError(
            f"Expected finite logits on the {split} split, but got NaN or infinity after step {step}; "
            "lower `model.learning_rate`, or check the weights of the checkpoint."
        )
    return output
