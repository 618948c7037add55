"""A new data set, explainer, method, normalizer or metric is its own files, and no list in another one.

Each kind is added here as a user of a fork would: a file in the folder of its kind, or a class in the file of its kind.
All in one process of its own, because a module cannot be taken out of a package again.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import attn_lightning
from attn_lightning.backbone.normalizers import Softmax
from attn_lightning.discovery import public_classes
from attn_lightning.evaluation.families import sparsity as families
from attn_lightning.evaluation.naming import declared
from attn_lightning.evaluation.subject import Ragged
from attn_lightning.methods import Method
from attn_lightning.metrics import sparsity
from attn_lightning.metrics.measure import Measure, by_name

PACKAGE = Path(attn_lightning.__file__).parent
REPOSITORY = Path(__file__).resolve().parents[2]

DATA = """
from attn_lightning.data.planted import Planted

class MyTexts(Planted):
    '''Texts of a user's own.'''

class _Base(Planted):
    '''A part of others.'''
"""

EXPLAINER = """
from typing import ClassVar
from attn_lightning.evaluation.explainer import Explainer

class Positions(Explainer):
    '''Later tokens matter more.'''

    name: ClassVar[str] = "positions"

    def scores(self, subject, batch):
        return batch.mask.cumsum(1).float()
"""

METHOD = """
from attn_lightning.methods.base import Method

class Mine(Method):
    '''A method of a user's own.'''

    def task_loss(self, step):
        return None
"""

TRIAL = """
import importlib.machinery as machinery
import json
import sys

# Every package whose folder has one more file in it, as if it lay there.
more = json.loads(sys.argv[1])
find = machinery.PathFinder.find_spec

def with_one_more(name, path=None, target=None):
    spec = find(name, path, target)
    if name in more:
        spec.submodule_search_locations.append(more[name])
    return spec

machinery.PathFinder.find_spec = with_one_more

import attn_lightning.backbone.normalizers as normalizers
from attn_lightning.commands.validation import Validator
from attn_lightning.evaluation.catalog import chosen_explainers
import attn_lightning.data, attn_lightning.methods

class Squared(normalizers.Softmax):
    '''A class in the file of normalizers.'''

Squared.__module__ = normalizers.__name__
normalizers.Squared = Squared

options = ["--data=MyTexts", "--method=Mine", "--model.backbone.normalizer=Squared"]
config = Validator().parse(["fit", *options])
print(json.dumps({
    "data": config["data"]["class_path"],
    "method": config["method"]["class_path"],
    "normalizer": config["model"]["backbone"]["init_args"]["normalizer"]["class_path"],
    "explainers": list(chosen_explainers("all")),
    "exported": ["MyTexts" in attn_lightning.data.__all__, "Mine" in attn_lightning.methods.__all__],
    "private": hasattr(attn_lightning.data, "_Base"),
}))
"""


def test_what_lies_in_the_folder_of_its_kind_is_known_by_name_everywhere(tmp_path):
    folders = {}
    for package, source in (("data", DATA), ("evaluation.explainers", EXPLAINER), ("methods", METHOD)):
        (tmp_path / package).mkdir()
        (tmp_path / package / "of_mine.py").write_text(source)
        folders[f"attn_lightning.{package}"] = str(tmp_path / package)
    command = [sys.executable, "-c", TRIAL, json.dumps(folders)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=dict(os.environ))
    assert result.returncode == 0, result.stderr[-2000:]
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["data"].endswith(".MyTexts")
    assert found["method"].endswith(".Mine")
    assert found["normalizer"].endswith("Squared")
    # Among the explanations, above the controls that they are compared with.
    assert found["explainers"][-5:] == ["positions", "rationale", "random", "uniform", "inverted"]
    assert found["exported"] == [True, True]
    assert not found["private"]


def test_a_measure_of_a_table_is_measured_declared_and_shown(monkeypatch):
    """A metric is its function with its declaration, and a test: the family goes over the table of its room."""
    mine = Measure("mine", "a number of mine", higher_is_better=None)
    table = {**sparsity.MEASURES, mine: lambda scores, mask: scores.max(1)}
    monkeypatch.setattr(families, "MEASURES", table)
    monkeypatch.setattr(families.Sparsity, "measures", by_name(table))
    lengths = np.array([2, 3])
    data = SimpleNamespace(examples=SimpleNamespace(lengths=lengths), batch_size=2, token_budget=100)
    explained = SimpleNamespace(explanations={"attention": Ragged(np.array([0.25, 0.75, 0.5, 0.1, 0.4]), lengths)})
    rows = families.Sparsity().run(data, explained, lambda finished: None)
    assert {row.metric: row.value for row in rows}["mine"] == pytest.approx(0.625)
    assert {row.metric for row in rows} == set(families.Sparsity.measures)
    assert declared("evaluation/sparsity/attention/mine") is mine


def mentions(name: str, *folders: Path) -> set[str]:
    """Files of the folders in whose code or configuration the name stands; comments and docstrings do not count."""
    found = set()
    for folder in folders:
        for path in folder.rglob("*"):
            if path.suffix == ".py" and name in names_in(path):
                found.add(str(path.relative_to(REPOSITORY)))
    return found


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return {
        getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "name", None) or ""
        for node in ast.walk(tree)
    }


@pytest.mark.parametrize(
    ("name", "home"),
    [
        ("Movies", "data/corpora.py"),
        ("HateXplain", "data/corpora.py"),
        ("GradientInput", "evaluation/explainers/gradients.py"),
        ("IntegratedGradients", "evaluation/explainers/integrated.py"),
        ("EntmaxAlpha", "backbone/normalizers.py"),
        ("Relation", "methods/relation.py"),
        ("gini", "metrics/sparsity.py"),
    ],
)
def test_what_is_there_needs_no_other_file_of_the_package(name, home):
    """The `__init__` of its room may repeat it for type checkers; the first test shows that it need not."""
    others = {file for file in mentions(name, PACKAGE) if not file.endswith("__init__.py")}
    assert others == {f"attn_lightning/{home}"}


def test_only_public_classes_that_are_written_in_the_package_are_found():
    found = public_classes("attn_lightning.methods", Method)
    assert "Method" in found
    assert "Callback" not in found
    assert not [name for name in found if name.startswith("_")]
    assert list(public_classes("attn_lightning.backbone", Softmax)) == ["Softmax"]
