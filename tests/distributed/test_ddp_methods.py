"""Methods with phases or memory on two processes: what is learned, weighted and logged is what one process gives.

Run as a script it trains on two processes and leaves what each of them has learned.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from attn_lightning.backbone.bottleneck import BottleneckClassifier, GaussianBottleneck
from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import BiLSTM
from attn_lightning.data import Planted, RandomEmbeddings
from attn_lightning.methods import InformationBottleneck, InstanceWeighting, Method, RandomAttentionPretraining
from attn_lightning.module import AttentionModule
from attn_lightning.step import TrainStep

BATCH_SIZE = 16


class ScatteredAttention(RandomAttentionPretraining):
    """Attention that is arbitrary, but the same whichever process has the text and however much it is padded."""

    def _draw(self, step: TrainStep) -> Tensor:
        mask = step.batch.mask
        places = torch.arange(mask.shape[1]) * 7 + mask.sum(1, keepdim=True)
        chosen = ((places % 5) < 2) & mask | (torch.arange(mask.shape[1]) == 0)
        return chosen / chosen.sum(1, keepdim=True)


class Case(NamedTuple):
    """A method and the model that it trains."""

    method: Callable[[], Method]
    model: type[AttentionClassifier] = AttentionClassifier
    options: Mapping[str, Any] = MappingProxyType({})


ROUND = partial(InformationBottleneck, warmup_epochs=1, num_rounds=1, beta=0.01)
GAUSSIAN = {"compressor": GaussianBottleneck}

CASES = {
    "pretraining": Case(partial(ScatteredAttention, num_pretraining_epochs=1, subset_size=14)),
    "slow_classifier": Case(partial(ScatteredAttention, num_pretraining_epochs=1, classifier_rate=0.5)),
    "weighting": Case(partial(InstanceWeighting, num_folds=3)),
    "bottleneck": Case(ROUND, BottleneckClassifier, GAUSSIAN),
    "bottleneck_direct": Case(partial(ROUND, feedback="direct"), BottleneckClassifier, GAUSSIAN),
    "bottleneck_joint": Case(partial(ROUND, schedule="joint"), BottleneckClassifier, GAUSSIAN),
}
NOISE_GATE = {"noise_gate": Case(ROUND, BottleneckClassifier)}
"""Its statistics are those of the first process, so two processes learn something else than one."""


def noise_of_places(like: Tensor) -> Tensor:
    """Stands in for `torch.randn_like`: noise that does not depend on which examples share a batch."""
    places = torch.arange(like[0].numel(), dtype=like.dtype).reshape(like.shape[1:])
    return torch.sin(3.0 * (places % like.shape[-1]) + 1.0).expand_as(like).clone()


def train(name: str, processes: int, folder: Path) -> dict[str, Any]:
    """Weights of the model, state of the method and metrics after three epochs in float64."""
    data = Planted(
        train_documents=64,
        validation_documents=8,
        test_documents=8,
        max_length=18,
        shortcut=0.9,
        batch_size=BATCH_SIZE // processes,
        embeddings=RandomEmbeddings(4),
        cache=folder / "cache",
    )
    torch.manual_seed(0)
    case = (CASES | NOISE_GATE)[name]
    method = case.method()
    module = AttentionModule(
        backbone=partial(case.model, encoder=partial(BiLSTM, hidden_size=3), **case.options),
        learning_rate=0.02,
        num_probe_examples=0,
    )
    trainer = Trainer(
        callbacks=[method],
        max_epochs=3,
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        precision="64-true",
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with mock.patch.object(torch, "randn_like", noise_of_places):
        trainer.fit(module, data)
    metrics = {key: torch.as_tensor(value) for key, value in trainer.callback_metrics.items()}
    return {"weights": module.backbone.state_dict(), "method": method.state_dict(), "metrics": metrics}


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each process has at the end, by method."""
    folder = tmp_path_factory.mktemp("two")
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, cwd=folder)
    assert result.returncode == 0, result.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_learn_what_one_learns(name: str, two_processes: list[dict[str, Any]], tmp_path: Path) -> None:
    alone = train(name, 1, tmp_path)
    for process in two_processes:
        found = process[name]
        torch.testing.assert_close(found["weights"], alone["weights"], rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(found["method"], alone["method"], rtol=1e-5, atol=1e-6)
        logged = {key: value for key, value in alone["metrics"].items() if key.startswith("train/")}
        assert logged.keys() <= found["metrics"].keys()
        for key, value in logged.items():
            assert float(found["metrics"][key]) == pytest.approx(float(value), rel=1e-5), key


@pytest.mark.slow
def test_noise_gates_learn_the_same_on_all_processes(two_processes: list[dict[str, Any]]) -> None:
    first, second = (process["noise_gate"]["weights"] for process in two_processes)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert first["compressor.deviation"].std() > 0


@pytest.mark.slow
def test_the_trial_would_notice_a_difference(two_processes: list[dict[str, Any]]) -> None:
    ours, other = (two_processes[0][name]["weights"] for name in ("pretraining", "slow_classifier"))
    assert not torch.allclose(ours["classifier.weight"], other["classifier.weight"], atol=1e-3)
    weights = two_processes[0]["weighting"]["method"]["weights"]
    assert len(weights) == 64
    assert weights.std() > 0.01


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    results = {name: train(name, 2, folder) for name in CASES | NOISE_GATE}
    torch.save(results, folder / f"{os.environ.get('LOCAL_RANK', '0')}.pt")
