"""Against combinatorial shortcuts: what attention selects should not tell the label by the selection alone.

With a mask M on a text X, `I(Y; M, X_M) = I(Y; M) + I(Y; X_M | M)`: a model can learn to select in a way that depends
on the label and to read the label off the selection, the first term. Bai et al. 2021 name two remedies. The body of
the paper was not available here: both are derived anew from their names and their theory.
"""

import logging
from typing import Any, Literal, get_args

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from attn_lightning.errors import ConfigurationError
from attn_lightning.methods.base import Method
from attn_lightning.step import TrainStep
from attn_lightning.types import Batch

logger = logging.getLogger(__name__)

Masks = Literal["subsets", "soft"]

NUM_EDGE_POSITIONS = 8
NUM_PARTS = 10


def random_subset_attention(mask: Tensor, size: int) -> Tensor:
    """The same weight on `min(size, n)` of a text's n real tokens, every such subset equally likely.

    Args:
        mask: (B, T) bool; nothing else of the examples is looked at.
        size: k, at least 1.

    Returns:
        (B, T) float32, rows sum to 1, 0 at padding.
    """
    keys = torch.randn_like(mask, dtype=torch.float32).masked_fill(~mask, -torch.inf)
    ranks = keys.argsort(dim=1, descending=True).argsort(dim=1)
    chosen = ((ranks < size) & mask).float()
    return chosen / chosen.sum(1, keepdim=True)


def random_soft_attention(mask: Tensor) -> Tensor:
    """Weights drawn uniformly from all attention a text can get: normalised independent exponential variables.

    Args:
        mask: (B, T) bool; nothing else of the examples is looked at.

    Returns:
        (B, T) float32, rows sum to 1, 0 at padding: a flat Dirichlet distribution over the real tokens.
    """
    # Half the sum of two squared normal variables is exponential.
    first, second = (torch.randn_like(mask, dtype=torch.float32) for _ in range(2))
    weights = (first.square() + second.square()).masked_fill(~mask, 0.0)
    return weights / weights.sum(1, keepdim=True)


class RandomAttentionPretraining(Method):
    """Random attention first, then attention is learned for a classifier that cannot read the selection.

    Objective:
        Epochs 1..T1: `L = mean_i L_task(attend(h_i, m_i))` with random attention `m_i`, independent of text and label;
        encoder and classifier learn, the scorer stands still. From then on: `L_task` with the model's own attention
        and the classifier frozen, so the scorer (and the encoder) learn to serve a classifier for which a selection
        meant nothing.

    Source:
        Bai et al. 2021, Why Attentions May Not Be Interpretable? (https://arxiv.org/abs/2006.05656). The body of the
        paper was not available: re-derived from the name and the theory, no result is a reproduction.

    Own choices:
        "subsets" draws uniformly from the subsets of k real tokens, "soft" uniformly from the simplex. The encoder
        keeps learning in the second phase. `classifier_rate` slows the classifier down instead of freezing it;
        `random_fraction` keeps a share of random attention in the second phase. Only epochs of the second phase
        compete for the best checkpoint, since the first ones are scored with an untrained scorer. What is frozen
        loses its gradients just before the optimizer step, after reduction over processes, so neither weight decay
        nor moments nor DDP notice. The phase follows from the number of the epoch alone, also after a resumption.

    Cost:
        0 more passes of the encoder; 1 more of the head while attention is random.

    Interactions:
        No two methods can replace attention. Terms that run the head again (the perturbation family) do so with the
        model's own attention, also in the first phase, where the scorer stands still nevertheless. Instance
        weighting sees the random masks and learns weights near 1 from them. Unlabelled examples keep their attention.
        Early stopping counts through both phases.

    Args:
        weight: 0 switches the method off; any other value is the same, as there is no term.
        num_pretraining_epochs: T1, at least 1 and below the number of epochs.
        masks: kind of random attention, `subsets` or `soft`.
        subset_size: k of `subsets`; shorter texts use all their tokens, their share is logged as `train/rap_clamped`.
        classifier_rate: learning rate of the classifier in the second phase, as a share of the others', in [0, 1];
            0 freezes it.
        random_fraction: probability, in [0, 1), that a text gets random attention in the second phase.

    Raises:
        ConfigurationError: an argument is out of its range, the training has no second phase, or the backbone does
            not say which of its parts are scorer and classifier.
    """

    def __init__(
        self,
        weight: float = 1.0,
        num_pretraining_epochs: int = 3,
        masks: Masks = "subsets",
        subset_size: int = 5,
        classifier_rate: float = 0.0,
        random_fraction: float = 0.0,
    ) -> None:
        super().__init__(weight)
        _check_at_least_one(num_pretraining_epochs=num_pretraining_epochs, subset_size=subset_size)
        if masks not in get_args(Masks):
            raise ConfigurationError(f"Expected `masks` to be one of {', '.join(get_args(Masks))}, but got {masks!r}.")
        if not 0 <= classifier_rate <= 1:
            raise ConfigurationError(
                f"Expected `classifier_rate` to be in [0, 1], but got {classifier_rate}; 0 freezes."
            )
        if not 0 <= random_fraction < 1:
            raise ConfigurationError(
                f"Expected `random_fraction` to be in [0, 1), but got {random_fraction}; lower it."
            )
        self.num_pretraining_epochs = num_pretraining_epochs
        self.masks = masks
        self.subset_size = subset_size
        self.classifier_rate = classifier_rate
        self.random_fraction = random_fraction
        self._pretraining = True

    def attention(self, step: TrainStep) -> Tensor | None:
        """(B, T) random attention in the first phase and, for some texts, in the second."""
        if self.weight == 0:
            return None
        own = step.output.attention
        if self._pretraining:
            # The product with 0 keeps the scorer in the graph: DDP waits for a gradient of every parameter.
            return self._draw(step.batch.mask).to(own.dtype) + 0.0 * own
        if self.random_fraction == 0:
            return None
        chosen = torch.rand(len(own), 1, device=own.device) < self.random_fraction
        return torch.where(chosen, self._draw(step.batch.mask).to(own.dtype), own)

    def _draw(self, mask: Tensor) -> Tensor:
        return random_soft_attention(mask) if self.masks == "soft" else random_subset_attention(mask, self.subset_size)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that there is a second phase and parts to freeze; give a slow classifier its own parameter group."""
        if self.weight == 0:
            return
        if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= self.num_pretraining_epochs:
            raise ConfigurationError(
                f"Expected `trainer.max_epochs` above `num_pretraining_epochs` = {self.num_pretraining_epochs} of "
                f"RandomAttentionPretraining, but got {trainer.max_epochs}; the scorer learns only after them."
            )
        parameters = _classifier_parameters(pl_module)
        _scorer_parameters(pl_module)
        if 0 < self.classifier_rate < 1:
            _split_off(trainer.optimizers[0], parameters)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the best of the first phase when the second one begins."""
        if self.weight > 0 and trainer.current_epoch == self.num_pretraining_epochs:
            _forget_best_checkpoints(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Find the phase from the epoch."""
        self._pretraining = trainer.current_epoch < self.num_pretraining_epochs
        if self.weight == 0:
            return
        self._set_classifier_rate(trainer.optimizers[0])
        if self._pretraining and self.masks == "subsets" and isinstance(batch, Batch):
            clamped = (batch.mask.sum(1) < self.subset_size).float().mean()
            pl_module.log(
                "train/rap_clamped", clamped, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(batch.rows)
            )

    def _set_classifier_rate(self, optimizer: torch.optim.Optimizer) -> None:
        rate = 1.0 if self._pretraining else self.classifier_rate
        for group in optimizer.param_groups:
            if group.get("is_classifier"):
                group["lr"] = rate * optimizer.param_groups[0]["lr"]

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Take the gradients of what is frozen away."""
        if self.weight == 0 or (not self._pretraining and self.classifier_rate > 0):
            return
        frozen = _scorer_parameters(pl_module) if self._pretraining else _classifier_parameters(pl_module)
        for parameter in frozen:
            parameter.grad = None


def _scorer_parameters(module: LightningModule) -> list[nn.Parameter]:
    function: Any = getattr(module.backbone, "attention_parameters", None)
    if function is None:
        raise ConfigurationError(
            "Expected a backbone with `attention_parameters()` for RandomAttentionPretraining, but "
            f"{type(module.backbone).__name__} has none; let it return the parameters of its scorer."
        )
    return list(function())


def _classifier_parameters(module: LightningModule) -> list[nn.Parameter]:
    classifier = getattr(module.backbone, "classifier", None)
    if not isinstance(classifier, nn.Module):
        raise ConfigurationError(
            "Expected a backbone with a module `classifier` for RandomAttentionPretraining, but "
            f"{type(module.backbone).__name__} has none; name its last layer so."
        )
    return list(classifier.parameters())


def _split_off(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    """Move parameters of one group into a last group of their own, marked `is_classifier`, with the same options."""
    moved = {id(parameter) for parameter in parameters}
    source = next(group for group in optimizer.param_groups if any(id(p) in moved for p in group["params"]))
    options = {key: value for key, value in source.items() if key != "params"}
    source["params"] = [parameter for parameter in source["params"] if id(parameter) not in moved]
    optimizer.add_param_group({**options, "params": parameters, "is_classifier": True})


def _forget_best_checkpoints(trainer: Trainer) -> None:
    """Let the next validation be the best so far, whatever came before."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            callback.best_k_models = {}
            callback.best_model_path = callback.kth_best_model_path = ""
            callback.best_model_score = None


def _check_at_least_one(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ConfigurationError(
                f"Expected `{name}` of RandomAttentionPretraining to be 1 or more, but got {value}."
            )


def mask_features(attention: Tensor, mask: Tensor) -> Tensor:
    """What a selection looks like, without a word of the text: the `m_i` that instance weighting conditions on.

    Attention becomes a mask by selecting the tokens with more than their uniform share, `a_t > 1 / n`; a subset with
    equal weights comes out as it is.

    Args:
        attention: (B, T), rows sum to 1.
        mask: (B, T) bool, the real tokens first in every row.

    Returns:
        (B, 2 * NUM_EDGE_POSITIONS + NUM_PARTS + 3) float32: whether each of the first and of the last positions is
        selected; the share of the selected tokens that lies in each tenth of the text; `log(1 + number selected)`;
        the share of the text that is selected; and runs of neighbours per selected token.
    """
    lengths = mask.sum(1, keepdim=True)
    selected = (attention * lengths > 1 + 1e-5) & mask
    places = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    numbers = selected.float()
    count = numbers.sum(1, keepdim=True)
    edges = numbers.new_zeros(len(mask), 2 * NUM_EDGE_POSITIONS)
    for edge, distance in enumerate((places, lengths - 1 - places)):
        near = selected & (distance < NUM_EDGE_POSITIONS)
        columns = (distance + edge * NUM_EDGE_POSITIONS).where(near, 0)
        edges.scatter_add_(1, columns, near.float())
    parts = (NUM_PARTS * places // lengths).clamp_max(NUM_PARTS - 1)
    shares = numbers.new_zeros(len(mask), NUM_PARTS).scatter_add_(1, parts, numbers) / count.clamp_min(1)
    starts = numbers - (numbers * numbers.roll(1, 1)).index_fill(1, places.new_zeros(1), 0.0)
    runs = starts.sum(1, keepdim=True) / count.clamp_min(1)
    return torch.cat([edges, shares, count.log1p(), count / lengths, runs], dim=1)


def neutral_weights(prior: NDArray[np.float64], conditional: NDArray[np.float64]) -> NDArray[np.float64]:
    """`w = P(y) / P(y | m)`, under which label and mask are independent and both keep their distribution.

    With the exact probabilities `E[w] = E[w | y] = E[w | m] = 1`.

    Args:
        prior: (N,) `P(y_i)`.
        conditional: (N,) `P(y_i | m_i)`, taken as 1e-6 where it is smaller.

    Returns:
        (N,) above 0.
    """
    weights: NDArray[np.float64] = prior / np.maximum(conditional, 1e-6)
    return weights


def normalized_within_classes(weights: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) weights divided by the mean over their class, so that no class gains."""
    classes, members = np.unique(labels, return_inverse=True)
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
        features: (N, F) of the masks, standardised inside every fold.
        labels: (N,).
        num_folds: stratified folds; as many as the rarest class has examples if that is fewer.

    Returns:
        (N,) in (0, 1), or None with fewer than two classes of two examples each: nothing can be fitted.
    """
    classes, members, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2 or counts.min() < 2:
        return None
    folds = StratifiedKFold(min(num_folds, int(counts.min())), shuffle=True, random_state=0)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
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
        every epoch, out of fold, on the masks of that epoch; its weights serve the next epoch, the first one has none.
        One weight per training row is kept and stored in checkpoints (4 bytes each), and about 120 bytes per row
        while an epoch lasts. A logged `train/weighting_mask_probability` above the prior says that masks tell labels.

    Cost:
        0 more passes of encoder and head; one copy of the masks to the CPU per step and `num_folds` small logistic
        regressions per epoch (about a second for 20,000 texts).

    Interactions:
        Multiplies the task loss only, not the terms of other methods, and also another method's task loss. The masks
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
        if weight > 1:
            raise ConfigurationError(f"Expected `weight` of InstanceWeighting to be in [0, 1], but got {weight}.")
        if num_folds < 2:
            raise ConfigurationError(f"Expected `num_folds` to be 2 or more, but got {num_folds}; 5 is usual.")
        if not 0 < min_weight <= 1 <= max_weight:
            raise ConfigurationError(
                f"Expected 0 < `min_weight` <= 1 <= `max_weight`, but got {min_weight} and {max_weight}."
            )
        self.num_folds = num_folds
        self.min_weight = min_weight
        self.max_weight = max_weight
        self._weights: NDArray[np.float32] = np.ones(0, np.float32)
        self._seen: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []

    def example_weights(self, step: TrainStep) -> Tensor | None:
        """(B,) weights of the last fit, 1 for rows that it has not seen; remembers the masks for the next one."""
        if self.weight == 0:
            return None
        rows, labels = (values.cpu().numpy() for values in (step.batch.rows, step.batch.labels))
        features = mask_features(step.output.attention.detach(), step.batch.mask)
        self._seen.append((rows, labels, features.cpu().numpy()))
        found = np.ones(len(rows), np.float32)
        known = rows < len(self._weights)
        found[known] = self._weights[rows[known]]
        return 1 + self.weight * (torch.from_numpy(found).to(step.output.logits.device) - 1)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Fit anew with the last batch of an epoch: before the validation, so that its checkpoint has the weights."""
        if self._seen and trainer.is_last_batch:
            logs = self.refit()
            for name, value in logs.items():
                pl_module.log(f"train/weighting_{name}", value, on_step=False, on_epoch=True, batch_size=1)

    def refit(self) -> dict[str, float]:
        """New weights from the masks seen since the last call, which are then forgotten.

        Returns:
            `clip_rate`, share of clipped weights; `effective_share`, effective sample size per example; and
            `mask_probability`, mean out-of-fold probability of the label given the mask. Empty if nothing was fitted.
        """
        rows, labels, features = (np.concatenate(parts) for parts in zip(*_of_all_processes(self._seen), strict=True))
        self._seen = []
        # The folds go by the order: that of the rows is the same for any number of processes and any shuffling.
        order = np.argsort(rows, kind="stable")
        rows, labels, features = rows[order], labels[order], features[order]
        conditional = out_of_fold_probabilities(features, labels, self.num_folds)
        if conditional is None:
            logger.warning("InstanceWeighting needs two classes with two examples each; the weights stay as they are")
            return {}
        prior = np.bincount(labels)[labels] / len(labels)
        free = normalized_within_classes(neutral_weights(prior, conditional), labels)
        clipped = free.clip(self.min_weight, self.max_weight)
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
    torch.distributed.all_gather_object(gathered, seen)
    return [part for parts in gathered for part in parts]
