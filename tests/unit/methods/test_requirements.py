"""What is refused before the first step, and which answers of a hook are."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.data import Planted, RandomEmbeddings
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods import AttentionAT, Combined, Method, Scheduled
from attn_lightning.methods.requirements import check_hooks, check_methods
from attn_lightning.module import AttentionModule
from attn_lightning.step import TrainStep
from attn_lightning.types import DataSpec, LossTerm


class Misspelled(Method):
    """A hook that nobody asks for."""

    def los(self, step: TrainStep) -> LossTerm:
        return LossTerm("nothing", step.output.scores.sum(), self.weight)


class Outdated(Method):
    """The hook's name before it was renamed, beside another hook."""

    def loss(self, step: TrainStep) -> LossTerm | None:
        return None

    def weights(self, step: TrainStep) -> Tensor:
        return torch.ones(len(step.batch.labels))


class Untouched(Method):
    """No hook at all."""


def model() -> AttentionClassifier:
    return AttentionClassifier(DataSpec(2, 10, 4, ("a", "b")))


def fit(method: Method, backbone: type[AttentionClassifier] = AttentionClassifier) -> Trainer:
    data = Planted(
        train_documents=16,
        validation_documents=8,
        test_documents=8,
        max_length=18,
        batch_size=8,
        embeddings=RandomEmbeddings(4),
    )
    trainer = Trainer(
        callbacks=[method],
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(AttentionModule(backbone), data)
    return trainer


def test_a_misspelled_hook_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(
        ConfigurationError, match=r"Misspelled to define at least one of loss, .*`los` meant to be `loss`"
    ):
        check_methods([Misspelled()], model())


def test_a_method_without_hooks_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"Untouched .* would train as the baseline"):
        check_methods([Untouched()], model())


@pytest.mark.parametrize("wrap", [lambda method: method, Scheduled, lambda method: Combined([method])])
def test_the_old_name_of_a_hook_is_refused_with_the_new_one(wrap) -> None:
    with pytest.raises(ConfigurationError, match="Outdated to define `example_weights`, but got `weights`"):
        fit(wrap(Outdated()))


def test_weights_that_are_no_function_are_the_users_own_business() -> None:
    class Holder(AttentionAT):
        """Keeps numbers under the old name."""

        weights = (1.0, 2.0)

    check_hooks(Holder)


def returning(hook: str, value) -> Method:
    cls = type("Own", (Method,), {hook: lambda self, step: value(step)})
    method: Method = cls()
    return method


@pytest.mark.parametrize(
    ("hook", "value", "message"),
    [
        ("loss", lambda step: step.output.scores.mean(), r"`loss` of Own to return a LossTerm .* tensor of shape \(\)"),
        ("loss", lambda step: 0.5, "`loss` of Own to return a LossTerm or None, but got a float"),
        (
            "loss",
            lambda step: LossTerm("own", step.output.scores, 1.0),
            r"scalar tensor, but got a tensor of .*\(8",
        ),
        ("example_weights", lambda step: torch.ones(8, 1), r"`example_weights` .*\(8,\), but got a .*\(8, 1\)"),
        ("example_weights", lambda step: 2.0, "`example_weights` .* but got a float"),
        ("task_loss", lambda step: step.output.logits.sum(), r"`task_loss` .*\(8,\), but got a tensor of shape \(\)"),
        ("attention", lambda step: step.output.attention[:, :1], r"`attention` .*\(8, 1[0-9]\), but got .*\(8, 1\)"),
    ],
)
def test_an_answer_of_another_kind_is_refused(hook, value, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        fit(returning(hook, value))


def test_a_plain_tensor_inside_a_schedule_is_refused_too() -> None:
    scheduled = Scheduled(returning("loss", lambda step: step.output.scores.mean()), "constant")
    with pytest.raises(ConfigurationError, match="`loss` of Own to return a LossTerm"):
        fit(scheduled)


class Column(AttentionClassifier):
    """One number per token too many axes."""

    def score(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return super().score(hidden, mask).unsqueeze(-1)


def test_a_model_whose_scores_have_another_shape_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"`score` of Column .* \(8, 1[0-9]\), but got \(8, 1[0-9], 1\)"):
        fit(AttentionAT(), Column)
