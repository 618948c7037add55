"""Conicity against a plain loop and known geometry, supervision against scipy, the control by its statistics."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from scipy.stats import chisquare, entropy
from torch import Tensor
from torch.nn import functional as F

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.data.planted import Planted
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods import Diversity, RationaleSupervision
from attn_lightning.methods.baselines import rationale_divergence, shuffle_rationale
from attn_lightning.module import AttentionModule
from attn_lightning.numerics import masked_softmax
from attn_lightning.step import TrainStep
from attn_lightning.types import Batch, DataSpec
from support.defaults import defaults

MASK = torch.arange(6) < torch.tensor([6, 4, 1])[:, None]


def make_step(rationale: Tensor | None, has_rationale: Tensor | None = None) -> TrainStep:
    torch.manual_seed(0)
    model = AttentionClassifier(DataSpec(2, 10, 4, ("a", "b")))
    batch = Batch(
        torch.randint(1, 10, MASK.shape) * MASK,
        MASK,
        torch.tensor([0, 1, 1]),
        torch.arange(3),
        rationale,
        has_rationale,
    )
    task_loss = lambda logits, labels: F.cross_entropy(logits, labels, reduction="none")  # noqa: E731
    return TrainStep(model, batch, model(batch.tokens, batch.mask), task_loss, progress=0.0)


# --- diversity ------------------------------------------------------------------------------------------------------


def test_diversity_is_the_mean_conicity_of_the_texts_that_have_one() -> None:
    step = make_step(None)
    expected = []
    for states, mask in zip(step.output.hidden.detach().numpy(), MASK.numpy(), strict=True):
        mean = states[mask].mean(axis=0)
        cosines = [h @ mean / (np.linalg.norm(h) * np.linalg.norm(mean)) for h in states[mask]]
        if len(cosines) > 1:
            expected.append(np.mean(cosines))
    assert len(expected) == 2
    assert Diversity().loss(step).value.item() == pytest.approx(np.mean(expected), abs=1e-6)


def test_a_batch_of_single_tokens_teaches_diversity_nothing() -> None:
    step = make_step(None)
    alone = MASK & (torch.arange(6) == 0)
    term = Diversity().loss(replace(step, output=replace(step.output, mask=alone)))
    term.value.backward()
    gradients = [p.grad for p in step.model.parameters() if p.grad is not None]
    assert term.value == 0
    assert all((gradient == 0).all() for gradient in gradients)


def test_diversity_leaves_scorer_and_classifier_alone() -> None:
    step = make_step(None)
    term = Diversity().loss(step)
    assert term.weight == 0.5
    term.value.backward()
    with_gradient = {name.split(".")[0] for name, p in step.model.named_parameters() if p.grad is not None}
    assert with_gradient == {"embedding", "encoder"}


# --- rationales -----------------------------------------------------------------------------------------------------


def test_divergence_is_scipys() -> None:
    rationale = torch.tensor([[0, 1, 1, 0, 0, 1], [0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0]], dtype=torch.bool)
    attention = masked_softmax(torch.randn(3, 6, dtype=torch.float64), MASK)
    value = rationale_divergence(attention, rationale)
    for index in range(2):
        expected = entropy(rationale[index].double().numpy(), attention[index].numpy())
        assert value[index].item() == pytest.approx(expected, abs=1e-9)
    assert value[2] == 0


def test_divergence_is_zero_and_flat_at_its_minimum_and_finite_at_sparse_attention() -> None:
    rationale = torch.tensor([[True, False, True, False]])
    attention = torch.tensor([[0.5, 0.0, 0.5, 0.0]], requires_grad=True)
    assert rationale_divergence(attention, rationale).item() == pytest.approx(0.0, abs=1e-6)
    missed = torch.tensor([[0.0, 1.0, 0.0, 0.0]], requires_grad=True)
    value = rationale_divergence(missed, rationale)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(missed.grad).all()  # type: ignore[arg-type]


def test_examples_without_a_rationale_count_as_zero() -> None:
    marks = torch.zeros(3, 6, dtype=torch.bool)
    marks[:, 0] = True
    whole = RationaleSupervision().loss(make_step(marks, torch.tensor([True, True, True])))
    part = RationaleSupervision().loss(make_step(marks, torch.tensor([True, False, False])))
    attention = make_step(marks).output.attention
    assert whole.value.item() == pytest.approx(-attention[:, 0].log().mean().item(), abs=1e-5)
    assert part.value.item() == pytest.approx(-attention[0, 0].log().item() / 3, abs=1e-5)
    assert part.logs["share"].item() == pytest.approx(1 / 3)


def test_marks_at_padding_change_nothing() -> None:
    marks = torch.zeros(3, 6, dtype=torch.bool)
    marks[:, 0] = True
    for method in (RationaleSupervision(), RationaleSupervision(shuffled=True)):
        assert method.loss(make_step(marks | ~MASK)).value == method.loss(make_step(marks)).value


def test_shuffled_marks_are_as_many_on_real_tokens_and_the_same_in_every_batch() -> None:
    marks = (torch.rand(3, 6, generator=torch.Generator().manual_seed(1)) < 0.5) & MASK
    rows = torch.tensor([7, 3, 11])
    shuffled = shuffle_rationale(marks, MASK, rows, seed=0)
    assert torch.equal(shuffled.sum(1), marks.sum(1))
    assert not (shuffled & ~MASK).any()
    order = torch.tensor([2, 0, 1])
    assert torch.equal(shuffle_rationale(marks[order], MASK[order], rows[order], seed=0), shuffled[order])
    wider = [F.pad(x, (0, 4)) for x in (marks, MASK)]
    assert torch.equal(shuffle_rationale(*wider, rows, seed=0)[:, :6], shuffled)
    assert not torch.equal(shuffle_rationale(marks, MASK, rows, seed=1), shuffled)


def test_shuffled_marks_are_uniform_over_the_text() -> None:
    marks = torch.zeros(3000, 6, dtype=torch.bool)
    marks[:, 0] = True
    counts = shuffle_rationale(marks, torch.ones_like(marks), torch.arange(3000), seed=0).sum(0)
    assert chisquare(counts.numpy()).pvalue > 0.001


class WithoutRationales(Planted):
    """A data module that knows what it has, as those of real corpora do."""

    def dataset(self, split: str):  # type: ignore[no-untyped-def]
        return super().dataset(split).remove_columns(["has_rationale"])


def test_data_without_rationales_is_refused_before_the_first_step(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("ATTN_LIGHTNING_CACHE", str(tmp_path))
    data = WithoutRationales(train_documents=8, validation_documents=4, test_documents=4)
    trainer = Trainer(
        max_epochs=1, callbacks=[RationaleSupervision()], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, accelerator="cpu",
    )  # fmt: skip
    with pytest.raises(ConfigurationError, match="rationales"):
        trainer.fit(AttentionModule(), datamodule=data)
    assert trainer.global_step == 0


def test_batch_without_rationales_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="rationales"):
        RationaleSupervision().loss(make_step(None))


def test_bad_seed_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="seed"):
        RationaleSupervision(seed=-1)


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (Diversity, {"weight": 0.5}),
        (RationaleSupervision, {"weight": 1.0, "shuffled": False, "seed": 0}),
    ],
)
def test_options_that_are_left_out_are_the_documented_ones(cls: Any, expected: dict[str, Any]) -> None:
    assert defaults(cls) == expected
