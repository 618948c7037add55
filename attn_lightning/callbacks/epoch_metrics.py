"""The metrics of one epoch, without those that Lightning still has of an earlier one."""

from collections.abc import Mapping

from torch import Tensor


class EpochMetrics:
    """Tells at the end of every epoch which of the logged metrics are of this epoch."""

    def __init__(self) -> None:
        self._validated: dict[str, Tensor] = {}

    def of(self, metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The metrics without the `val/` ones that no validation has logged since the last call.

        Args:
            metrics: `trainer.callback_metrics` at the end of an epoch, where validated values stay until the next ones.
        """
        earlier = self._validated
        self._validated = {name: value for name, value in metrics.items() if name.startswith("val/")}
        # By the tensor and not by its value: a model that does not move any more measures the same again. Callbacks
        # that measure in some validations only have names that stay even where one has taken place.
        return {name: value for name, value in metrics.items() if name not in earlier or earlier[name] is not value}
