"""The record of a study: what is written comes back, and what is damaged is one line."""

import json
from pathlib import Path

import pytest

from attn_lightning.errors import ConfigurationError
from attn_lightning.study.configuration import Study, Variant
from attn_lightning.study.expansion import Cell
from attn_lightning.study.record import RECORD, read_record, write_record


@pytest.fixture
def study() -> Study:
    def axis(*labels: str) -> tuple[Variant, ...]:
        return tuple(Variant(label, label, label, (("option", "value"),)) for label in labels)

    return Study(
        name="mine",
        experiments=Path("experiments"),
        methods=axis("vanilla", "ivat,epsilon=1"),
        data=axis("planted"),
        options=axis(""),
        seeds=(0, 5),
        metrics=("test/accuracy",),
        baseline="vanilla",
        require={"test/accuracy": 0.5},
    )


def cells_of(study: Study) -> list[Cell]:
    return [
        Cell(method.label, "planted", "", seed, Path("x.yaml"), (("a", "b"),), f"{method.label}_planted", control=True)
        for seed in study.seeds
        for method in study.methods
    ]


def test_what_tables_need_comes_back(tmp_path, study):
    write_record(tmp_path, study, cells_of(study))
    found, cells = read_record(tmp_path)
    assert (found.name, found.seeds, found.metrics) == (study.name, study.seeds, study.metrics)
    assert (found.baseline, found.require, found.condition) == (study.baseline, study.require, study.condition)
    for axis in ("methods", "data", "options"):
        assert [v.label for v in getattr(found, axis)] == [v.label for v in getattr(study, axis)]
    assert [str(cell) for cell in cells] == [str(cell) for cell in cells_of(study)]
    assert [(c.method, c.data, c.options, c.seed) for c in cells] == [
        (c.method, c.data, c.options, c.seed) for c in cells_of(study)
    ]


@pytest.mark.parametrize(
    "change", [{"methods": 3}, {"seeds": ["x"]}, {"cells": [{}]}, {"require": None}, {"metrics": None}]
)
def test_a_record_of_another_shape_is_refused(tmp_path, study, change):
    write_record(tmp_path, study, cells_of(study))
    path = tmp_path / RECORD
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ConfigurationError, match="Expected the record of a study"):
        read_record(tmp_path)


@pytest.mark.parametrize("contents", [None, "", "[]", "{}"])
def test_no_record_is_refused(tmp_path, contents):
    if contents is not None:
        (tmp_path / RECORD).write_text(contents)
    with pytest.raises(ConfigurationError, match="Expected the record of a study") as error:
        read_record(tmp_path)
    assert "\n" not in str(error.value)
