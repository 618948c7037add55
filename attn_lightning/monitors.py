"""Monitored metrics that nobody will log, found before the first step instead of after the first epoch."""

from collections.abc import Iterable, Iterator

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from attn_lightning.errors import ConfigurationError, did_you_mean


def check_monitors(callbacks: Iterable[Callback], known: Iterable[str]) -> None:
    """Refuse a checkpoint or an early stopping that waits for a metric which the run does not have.

    Names under `train/` pass, since methods choose theirs. With a callback of the user's own in the run, or one that
    measures (`ProbeSet`), every name passes, because it may log under any.

    Args:
        callbacks: of the trainer.
        known: the names of the validation metrics.

    Raises:
        ConfigurationError: naming the nearest known metrics, or all of them.
    """
    callbacks, known = list(callbacks), sorted(known)
    if any(_may_log(callback) for callback in callbacks):
        return
    for name in _monitored(callbacks):
        if name in known or name in ("epoch", "step") or name.startswith("train/"):
            continue
        hint = did_you_mean(name, known) or f" Use one of {', '.join(known)}."
        raise ConfigurationError(
            f"Expected a monitored metric of the validation split, but got {name!r}, which nothing logs here.{hint}"
        )


def _monitored(callbacks: Iterable[Callback]) -> Iterator[str]:
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint | EarlyStopping) and callback.monitor is not None:
            yield callback.monitor


def _may_log(callback: Callback) -> bool:
    """Whether the callback may log names that do not begin with `train/`: of ours and Lightning's only one does."""
    package = type(callback).__module__.partition(".")[0]
    return getattr(callback, "logs_validation_metrics", False) or package not in ("attn_lightning", "lightning")
