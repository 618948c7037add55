"""Examples whose label can be told from where attention goes count less; see `random_pretraining` for the theory."""

import logging
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor

from attn_lightning.checks import check_numbers
from attn_lightning.methods.base import Method
from attn_lightning.metrics.per_example import to_array
from attn_lightning.metrics.selection_features import mask_features
from attn_lightning.step import TrainStep

logger = logging.getLogger(__name__)


def neutral_weights(prior: NDArray[np.float64], conditional: NDArray[np.float64]) -> NDArray[np.float64]:
    """`w = P(y) / P(y | m)`, under which label and mask are independent and both keep their distribution.

    With the exact probabilities `E[w] = E[w | y] = E[w | m] = 1`.

    Args:
        prior: (N,) `P(y_i)`.
        conditional: (N,) `P(y_i | m_i)`, taken as 1e-6 where it is smaller.

    Returns:
        (N,) above 0.
    """
    # The floor keeps one example of probability 0 from ruling the mean of its class before anything is clipped.
    weights: NDArray[np.float64] = prior / np.maximum(conditional, 1e-6)
    return weights


def normalized_within_classes(weights: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) weights divided by the mean over their class, so that no class gains."""
    classes, members = np.unique(labels, return_inverse=True)
    # By member number and not by label, as classes may be missing from what was seen.
    means = np.bincount(members, weights) / np.bincount(members)
    assert len(means) == len(classes)
    return weights / means[members]


def effective_sample_size(weights: NDArray[np.float64]) -> float:
    """`(sum w)^2 / sum w^2`: how many equally weighted examples the weighted ones are worth (Kish)."""
    return float(weights.sum() ** 2 / np.square(weights).sum())


def out_of_fold_probabilities(
    features: NDArray[np.float32], labels: NDArray[np.int64], num_folds: int
) -> NDArray[np.float64] | None:
    """`P(y_i | m_i)` of a logistic regression that has not seen example i.

    Args:
        features: (N, F) of the masks, standardized inside every fold.
        labels: (N,).
        num_folds: stratified folds; as many as the rarest class has examples if that is fewer.

    Returns:
        (N,) in (0, 1), or None with fewer than two classes of two examples each: nothing can be fitted.
    """
    classes, members, counts = np.unique(labels, return_inverse=True, return_counts=True)
    # Every fold must hold out at least one example of each class and learn from another.
    if len(classes) < 2 or counts.min() < 2:
        return None
    # Imported where it is used: no other method waits for it.
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # A fixed seed, not the run's: the same masks give the same weights, also after a resumption.
    folds = StratifiedKFold(min(num_folds, int(counts.min())), shuffle=True, random_state=0)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    # Out of fold: a model that has seen the example knows its label from its mask by heart, and all weights were small.
    table = cross_val_predict(model, features, members, cv=folds, method="predict_proba")
    chosen: NDArray[np.float64] = table[np.arange(len(members)), members]
    return chosen


class InstanceWeighting(Method):
    """Mask-neutral learning: examples whose label can be told from the selection alone count less.

    Objective:
        `L = mean_i w_i L_task(x_i, y_i)`, `w_i = P(y_i) / P^(y_i | m_i)`, so that under the weights the mask says
        nothing about the label; divided by its mean over each class, then clipped to [min_weight, max_weight].

    Source:
        Bai et al. 2021, Why Attentions May Not Be Interpretable? (https://arxiv.org/abs/2006.05656). The body of the
        paper was not available: re-derived from the name and the theory, no result is a reproduction.

    Own choices:
        The mask of soft attention is `a_t > 1 / n`, described by `mask_features` (first and last positions, tenths of
        the text, how many, how scattered): positions only, no word. P^ is a logistic regression fitted at the end of
        every epoch, out of fold, on the last mask of each text in that epoch; its weights serve the next epoch, the
        first one has none.
        One weight per training row is kept and stored in checkpoints (4 bytes each), and about 120 bytes per row
        while an epoch lasts. A logged `train/weighting_mask_probability` above the prior says that masks tell labels.

    Cost:
        0 more passes of encoder and head; one copy of the attention to the CPU per step and `num_folds` small logistic
        regressions per epoch (about a second for 20,000 texts).

    Interactions:
        Multiplies the task loss only, not the terms of other methods, and also another method's task loss. With an
        explainer (`L2X`, `VIBI`) the label is the decision of its teacher. The masks
        are those trained with, so under random pretraining they are random and the weights near 1. All processes
        fit on the masks of all.

    Args:
        weight: how far the weights are applied, `1 + weight (w - 1)`, in [0, 1]; 0 is the baseline.
        num_folds: folds of the fit, at least 2.
        min_weight: smallest weight, above 0 and at most 1.
        max_weight: largest weight, at least 1.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    def __init__(
        self, weight: float = 1.0, num_folds: int = 5, min_weight: float = 0.1, max_weight: float = 10.0
    ) -> None:
        super().__init__(weight)
        check_numbers(self, at_most=1, weight=weight)
        check_numbers(self, at_least=2, advice="5 is usual", num_folds=num_folds)
        check_numbers(self, above=0, at_most=1, min_weight=min_weight)
        check_numbers(self, at_least=1, max_weight=max_weight)
        self.num_folds = num_folds
        self.min_weight = min_weight
        self.max_weight = max_weight
        self._weights: NDArray[np.float32] = np.ones(0, np.float32)
        self._seen: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []

    def example_weights(self, step: TrainStep) -> Tensor | None:
        """(B,) weights of the last fit, 1 for rows that it has not seen; remembers the masks for the next one."""
        if self.weight == 0:
            return None
        rows, labels = to_array(step.batch.rows), to_array(step.targets)
        # Now, as attention is gone after the step; kept as small features and not as masks of all lengths.
        features = mask_features(to_array(step.output.attention), to_array(step.batch.mask))
        self._seen.append((rows, labels, features))
        found = np.ones(len(rows), np.float32)
        # Rows are numbers of the training data; the weights reach as far as the highest that has been seen.
        known = rows < len(self._weights)
        found[known] = self._weights[rows[known]]
        return 1 + self.weight * (torch.from_numpy(found).to(step.output.logits.device) - 1)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Fit anew with the last batch of an epoch: before the validation, so that its checkpoint has the weights."""
        # Not `on_train_epoch_end`, which Lightning calls after the validation: the checkpoint of this epoch would lack
        # them.
        if self._seen and trainer.is_last_batch:
            logs = self.refit()
            for name, value in logs.items():
                # All processes have the same value, but Lightning warns where it is not told to compare them.
                pl_module.log(
                    f"train/weighting_{name}", value, on_step=False, on_epoch=True, sync_dist=True, batch_size=1
                )

    def refit(self) -> dict[str, float]:
        """New weights from the masks seen since the last call, which are then forgotten.

        Returns:
            `clip_rate`, share of clipped weights; `effective_share`, effective sample size per example; and
            `mask_probability`, mean out-of-fold probability of the label given the mask. Empty if nothing was fitted.
        """
        rows, labels, features = (np.concatenate(parts) for parts in zip(*_of_all_processes(self._seen), strict=True))
        self._seen = []
        # The last mask of each row, as a pool without labels makes an epoch read labelled texts several times: the fit
        # would otherwise have seen what is held out of it. In the order of the rows, by which the folds go: it is the
        # same for any number of processes and any shuffling.
        rows, last = np.unique(rows[::-1], return_index=True)
        labels, features = labels[::-1][last], features[::-1][last]
        conditional = out_of_fold_probabilities(features, labels, self.num_folds)
        if conditional is None:
            logger.warning("InstanceWeighting needs two classes with two examples each; the weights stay as they are")
            return {}
        # `P(y)` of what was seen; under class weights too, as these act beside this factor.
        prior = np.bincount(labels)[labels] / len(labels)
        # First the mean over the class, then the bounds: the other order would carry weights out
        # of them again.
        free = normalized_within_classes(neutral_weights(prior, conditional), labels)
        clipped = free.clip(self.min_weight, self.max_weight)
        # An epoch may have skipped rows (a limit of batches): what an earlier one found for them is kept.
        size = max(len(self._weights), int(rows.max()) + 1)
        self._weights = np.concatenate([self._weights, np.ones(size - len(self._weights), np.float32)])
        self._weights[rows] = clipped
        return {
            "clip_rate": float((clipped != free).mean()),
            "effective_share": effective_sample_size(clipped) / len(rows),
            "mask_probability": float(conditional.mean()),
        }

    def state_dict(self) -> dict[str, Any]:
        """The weight of every training row, for resumption."""
        return {"weights": torch.from_numpy(self._weights.copy())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `state_dict`."""
        self._weights = state_dict["weights"].numpy().copy()


def _of_all_processes(seen: list[Any]) -> list[Any]:
    """What all processes have seen, in the order of their ranks."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return seen
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    # All processes fit the same model on everything; each on its share would weight the same example differently.
    torch.distributed.all_gather_object(gathered, seen)
    return [part for parts in gathered for part in parts]
