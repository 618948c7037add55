"""What every training method is held to, for every subclass of `Method` that the package defines.

Run as a script it is one of the two processes of the distributed test.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import attn_lightning.methods
from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.normalizers import Uniform
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods.adversary import ModelConsistentAdversary
from attn_lightning.methods.base import Differentiates, Method
from attn_lightning.methods.combined import Combined, Scheduled
from attn_lightning.methods.explainers import L2X, Teacher
from attn_lightning.methods.requirements import check_requirements
from attn_lightning.testing import ALWAYS, EVERY_METHOD, WITH_TERM
from attn_lightning.testing.contract import objective
from attn_lightning.testing.small import (
    SPEC,
    SmallModel,
    noise_of_places,
    rows_of,
    settings_of,
    small_batch,
    small_model,
    small_step,
)
from attn_lightning.testing.training import check_training, train
from attn_lightning.types import Batch


def subclasses(parent: type[Method]) -> Iterator[type[Method]]:
    for child in parent.__subclasses__():
        yield child
        yield from subclasses(child)


METHODS = sorted(
    {
        cls
        for cls in subclasses(Method)
        if cls.__module__.startswith(f"{attn_lightning.methods.__name__}.")
        and not cls.__name__.startswith("_")  # the base of several
        and cls not in (Combined, Scheduled)  # made of other methods
    },
    key=lambda cls: cls.__name__,
)
TERMS = [cls for cls in METHODS if cls.loss is not Method.loss]
KINDS: dict[str, type[Backbone]] = {"user": SmallModel, "classifier": AttentionClassifier}
PAIRS = [(cls, check) for cls in METHODS for check in (*EVERY_METHOD, *(WITH_TERM if cls in TERMS else ()))]
every_method = pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)


def maker(cls: type[Method], model: Backbone) -> Callable[..., Method]:
    """What makes a method for a model: those that need another one get it."""
    if issubclass(cls, L2X):
        return partial(explainer_of, cls)
    return partial(adversary_of, model) if cls is ModelConsistentAdversary else cls


def explainer_of(cls: type[L2X], **options: Any) -> Method:
    method = cls(**options)
    method.teacher = Teacher(small_model(AttentionClassifier).eval())
    return method


def adversary_of(model: Backbone, **options: Any) -> Method:
    method = ModelConsistentAdversary(**options)
    method.base = small_model(type(model))
    with torch.no_grad():
        for parameter in method.base.parameters():
            parameter.mul_(0.5)  # the distance from equal predictions has no gradient
    return method


def test_methods_are_found() -> None:
    assert {"AttentionRP", "AttentionAT", "AttentionIAT", "AttentionVAT", "AttentionIVAT"} <= {
        cls.__name__ for cls in METHODS
    }


def test_every_method_can_be_imported_from_the_package() -> None:
    names = {cls.__name__ for cls in METHODS} | {"Combined", "Scheduled"}
    assert names <= set(attn_lightning.methods.__all__)
    assert all(isinstance(getattr(attn_lightning.methods, name), type) for name in names)


@every_method
@pytest.mark.parametrize("check", ALWAYS, ids=lambda check: check.__name__)
def test_without_a_model(cls: type[Method], check: Callable[..., None]) -> None:
    check(cls)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("cls", "check"), PAIRS, ids=lambda part: part.__name__)
def test_on_a_model(cls: type[Method], check: Callable[..., None], kind: str) -> None:
    kind = kind if settings_of(cls).any_model else "classifier"
    model = small_model(KINDS[kind], cls.requires_backbone)
    check(maker(cls, model), model)


@every_method
def test_it_trains(cls: type[Method], tmp_path: Path) -> None:
    options = {}
    if cls is ModelConsistentAdversary or issubclass(cls, L2X):
        # A model of a class without a name: the other one must be its twin.
        option = "teacher_checkpoint" if issubclass(cls, L2X) else "base_checkpoint"
        options = {option: tmp_path / "base.ckpt"}
        train(cls(weight=0.0), tmp_path)[1].save_checkpoint(options[option])
    check_training(cls, options)


@every_method
def test_uniform_attention_is_refused_by_methods_that_need_scores(cls: type[Method]) -> None:
    if cls.differentiates in (Differentiates.SCORES, Differentiates.SCORES_TWICE):
        with pytest.raises(ConfigurationError, match=cls.__name__):
            check_requirements(cls(), AttentionClassifier(SPEC, normalizer=Uniform))


@every_method
def test_another_backbone_than_the_required_one_is_refused(cls: type[Method]) -> None:
    if issubclass(SmallModel, cls.requires_backbone):
        check_requirements(cls(), small_model(SmallModel))
    else:
        with pytest.raises(ConfigurationError, match=cls.requires_backbone.__name__):
            check_requirements(cls(), small_model(SmallModel))


class WatchedTable(nn.Embedding):
    """Notes who asks for all of its vectors, and looks words up without that."""

    asked = 0

    @property
    def weight(self) -> Tensor:
        self.asked += 1
        return self._parameters["weight"]

    def forward(self, tokens: Tensor) -> Tensor:
        return nn.functional.embedding(tokens, self._parameters["weight"], self.padding_idx)


@every_method
def test_it_says_whether_it_reads_the_word_table(cls: type[Method]) -> None:
    model = small_model(AttentionClassifier, cls.requires_backbone)
    method = maker(cls, model)()
    model.embedding.__class__ = WatchedTable
    objective(method, small_step(model, small_batch())).backward()
    assert bool(model.embedding.asked) == cls.reads_word_table


class Loss(nn.Module):
    """Task loss plus term, in the shape that DDP wraps."""

    def __init__(self, model: Backbone, method: Method) -> None:
        super().__init__()
        self.model, self.method = model, method

    def forward(self, batch: Batch) -> Tensor:
        return objective(self.method, small_step(self.model, batch))


def gradients_by_method(batch: Batch, wrap: Callable[[Loss], nn.Module]) -> dict[str, list[Tensor]]:
    found = {}
    for cls in TERMS:
        # In float64, so that the finite differences of the virtual methods leave no rounding to compare.
        model = small_model(AttentionClassifier, cls.requires_backbone)
        loss = Loss(model, maker(cls, model)()).double()
        wrapped = wrap(loss)  # a name of its own: DDP reduces only while it lives
        wrapped(batch).backward()
        found[cls.__name__] = [parameter.grad for parameter in loss.parameters() if parameter.grad is not None]
        assert len(found[cls.__name__]) == len(list(loss.parameters())), f"{cls.__name__} leaves parameters unused"
    return found


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)], env=environment) for rank in range(2)
    ]
    assert [process.wait(timeout=600) for process in processes] == [0, 0]
    monkeypatch.setattr(torch, "randn_like", noise_of_places)
    expected, found = gradients_by_method(small_batch(), lambda loss: loss), torch.load(tmp_path / "gradients.pt")
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        same = [torch.allclose(*pair, rtol=1e-6, atol=1e-9) for pair in zip(found[name], wanted, strict=True)]
        assert all(same), name


def distributed_worker(rank: int, folder: Path) -> None:
    """One of two processes: every method on half of the batch."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.randn_like = noise_of_places
    found = gradients_by_method(rows_of(small_batch(), torch.arange(2) * 2 + rank), DistributedDataParallel)
    if rank == 0:
        torch.save(found, folder / "gradients.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    distributed_worker(int(sys.argv[1]), Path(sys.argv[2]))
