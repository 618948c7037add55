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
    weights = None if class_weights is None else class_weights.float()
    return nn.functional.cross_entropy(logits.float(), labels, weight=weights, reduction="none")


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


class LossWatch:
    """Refuses a training loss that became NaN or infinite, without waiting for the device in every step.

    To look at a number is to wait until the device has caught up, so that losses are looked at together, and the error
    still names the first bad step. The weights of later steps are of no use then, and nothing may keep them: call
    `check` before a checkpoint is written and when an epoch ends.

    Args:
        device: where losses are computed. On a CPU nothing waits, so that each one is looked at before its backward
            pass, which would make every weight NaN.
        together: how many losses are looked at together elsewhere.
    """

    def __init__(self, device: torch.device, together: int = 50) -> None:
        self._together = 1 if device.type == "cpu" else together
        self._waiting: list[tuple[Tensor, Mapping[str, Tensor], int, int]] = []

    def add(self, total: Tensor, parts: Mapping[str, Tensor], step: int, epoch: int) -> None:
        """Take the loss of a step.

        Args:
            total: () the loss.
            parts: () values of the task loss and of the terms, by name; no graph is kept.
            step: of the run.
            epoch: of the run.

        Raises:
            NumericalError: this loss, or one before it, is not finite; it names the step and the value of every part.
        """
        detached = {name: value.detach() for name, value in parts.items()}
        self._waiting.append((total.detach(), detached, step, epoch))
        if len(self._waiting) >= self._together:
            self.check()

    def check(self) -> None:
        """Look at all losses since the last look, the first one first; raises as `add` does, and again if asked again.

        Cost: one copy from the device.
        """
        if not self._waiting:
            return
        good = torch.stack([total for total, *_ in self._waiting]).isfinite().tolist()
        if not all(good):
            # Kept: whoever writes a checkpoint of the failed run is refused as well.
            _, parts, step, epoch = self._waiting[good.index(False)]
            raise _not_finite(parts, step, epoch)
        self._waiting.clear()


def _not_finite(parts: Mapping[str, Tensor], step: int, epoch: int) -> NumericalError:
    """The error of an objective that became NaN or infinite."""
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
