"""Random attention in the first phase; what each phase moves, bit by bit."""

import copy
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import Average
from attn_lightning.backbone.normalizers import GumbelTopK
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods import InstanceWeighting, RandomAttentionPretraining
from attn_lightning.methods.base import Method
from attn_lightning.module import AttentionModule
from support.defaults import defaults
from support.steps import averaging_fit, constant_step
from support.training import fit, planted

MASK = torch.arange(6) < torch.tensor([6, 4, 1])[:, None]


class Snapshots(Callback):
    """The weights after every epoch, and before the first."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.states.append(copy.deepcopy(pl_module.backbone.state_dict()))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.states.append(copy.deepcopy(pl_module.backbone.state_dict()))

    def moved(self, epoch: int) -> set[str]:
        before, after = self.states[epoch], self.states[epoch + 1]
        return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("masks", ["subsets", "soft"])
def test_random_attention_does_not_depend_on_texts_and_labels(masks: Any) -> None:
    method, found = RandomAttentionPretraining(masks=masks, subset_size=2), []
    for step in (constant_step(MASK), constant_step(MASK, tokens=7, labels=(1, 0, 0))):
        torch.manual_seed(5)
        found.append(method.attention(step))
    torch.testing.assert_close(found[0], found[1], atol=0, rtol=0)


def test_every_text_draws_for_itself_whether_it_trains_with_its_own_attention() -> None:
    method = RandomAttentionPretraining(random_fraction=0.5, subset_size=1)
    optimizer = SimpleNamespace(param_groups=[])
    trainer: Any = SimpleNamespace(current_epoch=method.num_pretraining_epochs, optimizers=[optimizer])
    method.on_train_batch_start(trainer, AttentionModule(), None, 0)
    step = constant_step(torch.ones(12, 6, dtype=torch.bool), labels=(0, 1) * 6)
    shares = []
    for seed in range(5):
        torch.manual_seed(seed)
        found = method.attention(step)
        assert found is not None
        own = (found == step.output.attention).all(1)
        assert (found[~own].amax(1) == 1).all(), "a drawn subset of one word, never a mixture"
        shares.append(own.double().mean().item())
    assert all(0 < share < 1 for share in shares)


class Scores(Callback):
    """A validation score that is best in the first epoch."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        pl_module.log("val/score", [9.0, 8.0, 1.0, 2.0][trainer.current_epoch])


def test_each_phase_moves_what_it_trains_and_only_the_second_one_is_kept(tmp_path: Path) -> None:
    snapshots, best = Snapshots(), ModelCheckpoint(tmp_path, "best", monitor="val/score", mode="max")
    method = RandomAttentionPretraining(num_pretraining_epochs=2, subset_size=3)
    averaging_fit(tmp_path, method, snapshots, Scores(), best, max_epochs=4)
    assert snapshots.moved(0) == snapshots.moved(1) == {"embedding", "encoder", "classifier"}
    assert snapshots.moved(2) == snapshots.moved(3) == {"embedding", "encoder", "scorer"}
    assert best.best_model_score == 2.0


def test_a_resumed_run_finds_its_phase(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, auto_insert_metric_name=False)
    make = lambda: RandomAttentionPretraining(num_pretraining_epochs=1, classifier_rate=0.5)  # noqa: E731
    whole = averaging_fit(tmp_path, make(), keep, max_epochs=3)
    again = averaging_fit(
        tmp_path, make(), ModelCheckpoint(tmp_path / "again"), max_epochs=3, resume=tmp_path / "1.ckpt"
    )
    for name, value in whole.backbone.state_dict().items():  # type: ignore[union-attr]
        torch.testing.assert_close(again.backbone.state_dict()[name], value, atol=0, rtol=0)  # type: ignore[union-attr]


@pytest.mark.parametrize(("options", "expected"), [({}, 2), ({"subset_size": 3}, 3)])
def test_random_subsets_are_as_large_as_what_the_model_selects(options: dict[str, Any], expected: int) -> None:
    """A student is fixed after the first phase: on the mean of more words than it gets, it would be on others."""
    step = constant_step(MASK)
    model: Any = step.model
    model.normalizer = GumbelTopK(k=2)
    found = RandomAttentionPretraining(**options).attention(step)
    assert found is not None
    assert (found > 0).sum(1).tolist() == [min(expected, length) for length in (6, 4, 1)]


@pytest.mark.parametrize("pool", [None, "train"])
def test_the_share_of_short_texts_is_logged_with_a_pool_too(pool: str | None, tmp_path: Path) -> None:
    logged: dict[str, float] = {}

    class Logged(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
            logged.update({name: float(value) for name, value in trainer.callback_metrics.items()})

    method = RandomAttentionPretraining(num_pretraining_epochs=1, subset_size=1000)
    averaging_fit(tmp_path, method, Logged(), max_epochs=2, unlabeled=pool)
    assert logged["train/rap_clamped"] == 1.0


class LearningRates(Callback):
    """The learning rate of the group that holds the classifier, after every epoch."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        wanted = id(pl_module.backbone.classifier.weight)
        groups = trainer.optimizers[0].param_groups
        assert sum(len(group["params"]) for group in groups) == len(list(pl_module.parameters()))
        self.rates += [group["lr"] for group in groups if any(id(p) == wanted for p in group["params"])]


def test_a_slow_classifier_has_its_own_learning_rate(tmp_path: Path) -> None:
    rates = LearningRates()
    method = RandomAttentionPretraining(num_pretraining_epochs=1, classifier_rate=0.25, random_fraction=0.5)
    averaging_fit(tmp_path, method, rates, max_epochs=2)
    assert rates.rates == pytest.approx([1e-3, 2.5e-4])


class OwnRate(Average):
    """An encoder with a learning rate of its own, as a pretrained one has."""

    def learning_rates(self) -> list[tuple[list[nn.Parameter], float]]:
        return [(list(self.parameters()), 1e-4)]


def test_a_slow_classifier_goes_with_an_encoder_whose_rate_has_a_schedule(tmp_path: Path) -> None:
    """A schedule has one function per group of parameters, and the slow classifier is one more group."""
    rates, keep = LearningRates(), ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, auto_insert_metric_name=False)
    make = lambda: RandomAttentionPretraining(num_pretraining_epochs=1, classifier_rate=0.25)  # noqa: E731
    whole = averaging_fit(tmp_path, make(), rates, keep, max_epochs=2, encoder=OwnRate)
    assert rates.rates == pytest.approx([1e-3, 2.5e-4])
    again = averaging_fit(
        tmp_path,
        make(),
        ModelCheckpoint(tmp_path / "again"),
        max_epochs=2,
        encoder=OwnRate,
        resume=tmp_path / "0.ckpt",
    )
    for name, value in whole.backbone.state_dict().items():  # type: ignore[union-attr]
        torch.testing.assert_close(again.backbone.state_dict()[name], value, atol=0, rtol=0)  # type: ignore[union-attr]


def test_weight_zero_is_the_baseline(tmp_path: Path) -> None:
    baseline = averaging_fit(tmp_path, max_epochs=1)
    for method in (RandomAttentionPretraining(weight=0.0), InstanceWeighting(weight=0.0)):
        found = averaging_fit(tmp_path, method, max_epochs=1)
        pairs = zip(found.parameters(), baseline.parameters(), strict=True)
        assert all(torch.equal(got, want) for got, want in pairs)


def test_a_training_without_a_second_phase_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="max_epochs"):
        averaging_fit(tmp_path, RandomAttentionPretraining(num_pretraining_epochs=2), max_epochs=2)


def test_steps_that_end_within_the_first_phase_are_refused(tmp_path: Path) -> None:
    """41 texts in batches of 16 are 3 steps per epoch."""
    data = planted(cache=tmp_path / "cache")

    def train(max_epochs: int, **options: Any) -> Trainer:
        module = AttentionModule(partial(AttentionClassifier, encoder=Average), num_probe_examples=0)
        method = RandomAttentionPretraining(num_pretraining_epochs=2)
        return fit(module, data, method, use_distributed_sampler=False, max_epochs=max_epochs, **options)

    for epochs in (4, -1):
        with pytest.raises(ConfigurationError, match=r"`trainer\.max_steps` above the 6 steps .*, but got 6"):
            train(epochs, max_steps=6)
    with pytest.raises(ConfigurationError, match="above the 4 steps"):
        train(4, max_steps=4, accumulate_grad_batches=2)
    assert train(4, max_steps=7).global_step == 7


@pytest.mark.parametrize(
    "options",
    [
        {"num_pretraining_epochs": 0},
        {"subset_size": 0},
        {"masks": "hard"},
        {"classifier_rate": 1.5},
        {"random_fraction": 1.0},
    ],
)
def test_bad_options_of_pretraining_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        RandomAttentionPretraining(**options)


def test_both_remedies_together(tmp_path: Path) -> None:
    methods: list[Method] = [RandomAttentionPretraining(num_pretraining_epochs=1), InstanceWeighting()]
    averaging_fit(tmp_path, *methods, max_epochs=2)


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (
            RandomAttentionPretraining,
            {
                "weight": 1.0,
                "num_pretraining_epochs": 3,
                "masks": "subsets",
                "subset_size": None,
                "classifier_rate": 0.0,
                "random_fraction": 0.0,
            },
        ),
    ],
)
def test_options_that_are_left_out_are_the_documented_ones(cls: Any, expected: dict[str, Any]) -> None:
    assert defaults(cls) == expected


def test_a_rate_out_of_its_range_names_the_method():
    with pytest.raises(
        ConfigurationError, match=r"`classifier_rate` of RandomAttentionPretraining .* got 2; 0 freezes"
    ):
        RandomAttentionPretraining(classifier_rate=2)
