"""The suite: parts are kept, resumed and separated; a model that predicts nothing is refused."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import Average
from attn_lightning.errors import NumericalError
from attn_lightning.evaluation.explainer import Explainer
from attn_lightning.evaluation.explainers.gradients import Attention
from attn_lightning.evaluation.family import MODEL, Family, Row
from attn_lightning.evaluation.folder import Parts
from attn_lightning.evaluation.progress import Progress
from attn_lightning.evaluation.subject import Ragged, Subject
from attn_lightning.evaluation.suite import Plan, measure
from attn_lightning.metrics.measure import Measure, by_name
from attn_lightning.types import Batch, DataSpec

LENGTHS = np.array([4, 1, 6, 3, 2])


class Texts:
    """Five random texts."""

    lengths = LENGTHS

    def __len__(self):
        return len(LENGTHS)

    def __getitem__(self, rows):
        lengths = torch.from_numpy(LENGTHS[list(rows)])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        tokens = torch.zeros(mask.shape, dtype=torch.int64)
        for line, row in zip(tokens, rows, strict=True):
            generator = torch.Generator().manual_seed(row)
            line[: LENGTHS[row]] = torch.randint(2, 12, (LENGTHS[row],), generator=generator)
        return Batch(tokens, mask, torch.tensor([row % 2 for row in rows]), torch.tensor(list(rows)))


class Position(Explainer):
    """Later tokens matter more; counts how often it was asked."""

    name = "position"

    def __init__(self, factor=1.0):
        self.factor = factor
        self._calls = 0

    def scores(self, subject, batch):
        self._calls += 1
        return torch.arange(batch.mask.shape[1]).expand(batch.mask.shape) * self.factor


class Mass(Family):
    """Mean of every explanation, and a random number."""

    name = "mass"
    heading = "mass"
    measures: ClassVar = by_name([Measure("mean", "the mean"), Measure("draw", "a draw")])
    uncontrolled = frozenset({"draw"})

    def __init__(self, scale=1.0, fails=False):
        self.scale = scale
        self._fails = fails
        self._calls = 0

    def run(self, subject, explained, advance):
        if self._fails:
            raise KeyboardInterrupt
        self._calls += 1
        advance(len(subject.examples))
        rows = [
            Row.of("mean", name, np.array([scores[row].mean() * self.scale for row in range(len(scores))]))
            for name, scores in explained.explanations.items()
        ]
        return [*rows, Row("draw", MODEL, float(torch.rand(())), None, 5, 5)]


class Never(Mass):
    """Not for this data."""

    name = "never"

    def unavailable(self, subject):
        return "the moon is full"


@pytest.fixture
def subject():
    torch.manual_seed(0)
    spec = DataSpec(2, 12, 5, ("a", "b"))
    return Subject(AttentionClassifier(spec, encoder=Average).eval(), Texts(), 2, erased=1, batch_size=2)


def explained(**options):
    return {"attention": Attention(), "position": Position(**options)}


def test_ragged_keeps_rows_apart_in_any_order(tmp_path):
    ragged = Ragged.empty(LENGTHS)
    assert np.isnan(ragged.values).all()
    for rows in ([3, 0], [4, 2, 1]):
        mask = np.arange(6) < LENGTHS[rows][:, None]
        ragged.put(np.array(rows), np.tile(np.arange(6.0), (len(rows), 1)) + 10 * np.array(rows)[:, None], mask)
    for row, length in enumerate(LENGTHS):
        assert ragged[row].tolist() == [10 * row + place for place in range(length)]
    ragged.save(tmp_path / "x.npy")
    again = Ragged.load(tmp_path / "x.npy", LENGTHS)
    np.testing.assert_array_equal(again.pad(np.array([1, 4])), [[10, 0], [40, 41]])


def test_batches_cover_every_example_within_the_budget(subject):
    budget = replace(subject, batch_size=10, token_budget=7)
    batches = list(budget.batches())
    assert sorted(int(row) for batch in batches for row in batch.rows) == [0, 1, 2, 3, 4]
    assert all(batch.mask.numel() <= 7 for batch in batches)


def test_generators_depend_on_seed_and_keys_alone(subject):
    first = torch.rand(3, generator=subject.generator(4))
    subject.generator(5)
    assert torch.equal(first, torch.rand(3, generator=subject.generator(4)))
    assert not torch.equal(first, torch.rand(3, generator=subject.generator(5)))
    assert not torch.equal(first, torch.rand(3, generator=replace(subject, seed=1).generator(4)))


def test_a_finished_evaluation_is_read_not_measured(subject, tmp_path):
    parts, family, explainers = Parts(tmp_path), Mass(), explained()
    first = measure(subject, Plan([family], explainers), parts, Progress())
    calls = explainers["position"]._calls
    again = measure(subject, Plan([family], explainers), parts, Progress())
    assert again.rows == first.rows
    assert (family._calls, explainers["position"]._calls) == (1, calls)
    expected = np.mean([np.arange(length).mean() for length in LENGTHS])
    assert first.rows["mass"][1].value == pytest.approx(expected)


def test_an_interrupted_evaluation_keeps_what_was_finished(subject, tmp_path):
    parts, explainers = Parts(tmp_path), explained()
    done, stopped = Mass(), Never(fails=True)
    stopped.unavailable = lambda subject: None
    with pytest.raises(KeyboardInterrupt):
        measure(subject, Plan([done, stopped], explainers), parts, Progress())
    calls = explainers["position"]._calls
    stopped._fails = False
    findings = measure(subject, Plan([done, stopped], explainers), parts, Progress())
    assert (done._calls, stopped._calls, explainers["position"]._calls) == (1, 1, calls)
    assert set(findings.rows) == {"mass", "never"}


def test_other_options_are_measured_anew(subject, tmp_path):
    parts = Parts(tmp_path)
    first = measure(subject, Plan([Mass()], explained()), parts, Progress())
    scaled = measure(subject, Plan([Mass(scale=2.0)], explained()), parts, Progress())
    assert scaled.rows["mass"][0].value == pytest.approx(2 * first.rows["mass"][0].value)
    stretched = measure(subject, Plan([Mass()], explained(factor=3.0)), parts, Progress())
    assert stretched.rows["mass"][1].value == pytest.approx(3 * first.rows["mass"][1].value)
    assert stretched.rows["mass"][0] == first.rows["mass"][0]


def test_draws_do_not_depend_on_what_ran_before(subject, tmp_path):
    torch.manual_seed(1)
    first = measure(subject, Plan([Mass()], explained()), Parts(tmp_path / "a"), Progress()).rows["mass"][-1]
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = measure(subject, Plan([Mass()], explained()), Parts(tmp_path / "b"), Progress()).rows["mass"][-1]
    assert first == second
    assert torch.equal(state, torch.get_rng_state())


def test_what_cannot_be_had_is_named(subject, tmp_path):
    findings = measure(subject, Plan([Mass(), Never()], explained()), Parts(tmp_path), Progress())
    assert findings.skipped == {"never": "the moon is full"}
    assert set(findings.rows) == {"mass"}


def test_a_model_that_predicts_nan_is_refused(subject, tmp_path):
    with torch.no_grad():
        subject.model.classifier.bias.fill_(float("nan"))
    with pytest.raises(NumericalError, match=r"5 of 5 examples \(rows 0, 1, 2, 3, 4\)"):
        measure(subject, Plan([Mass()], explained()), Parts(tmp_path), Progress())
    assert not list(tmp_path.glob("*.json"))


def test_rows_without_valid_examples_have_no_value():
    row = Row.of("mean", "x", np.array([np.nan, np.nan]), fraction=0.5)
    assert (row.value, row.std, row.n_valid, row.n, row.setting) == (None, None, 0, 2, {"fraction": 0.5})
