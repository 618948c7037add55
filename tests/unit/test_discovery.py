"""A new data set, explainer, method, normalizer or metric is its own files, and no list in another one.

Each kind is added here as a user of a fork would: a file in the folder of its kind, or a class in the file of its kind.
All in one process of its own, because a module cannot be taken out of a package again.
"""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import attn_lightning
from attn_lightning.backbone.normalizers import Softmax
from attn_lightning.discovery import public_classes
from attn_lightning.methods import Method
from support.rationales import Documents

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

METRICS = {
    "metrics.sparsity": {"MEASURES": "lambda weights, mask: weights.max(1)"},
    "metrics.plausibility": {
        "PER_DOCUMENT": "lambda scores, rationale, mask: (rationale & mask).sum(1).astype(float)",
        "OVER_ALL": "lambda found: float(np.nansum(found.tokens.marked))",
    },
    "metrics.faithfulness": {
        "PER_FRACTION": "lambda p: p.whole - p.without + 1",
        "SOFT": "lambda p: p.nothing - p.only + p.without",
        "PER_COUNT": "lambda predicted, from_top: (predicted != from_top).astype(float)",
    },
    "metrics.robustness": {"CURVES": "lambda found: 1.0 - (found.predicted == found.clean)"},
    "metrics.calibration": {
        "PER_EXAMPLE": "lambda probabilities, labels: 1 - probabilities[np.arange(len(labels)), labels]"
    },
    "metrics.selective": {
        "PER_EXAMPLE": "lambda batch: 1 - rationale_mass(batch.scores, batch.rationale, batch.mask)",
        "COUNTED": "lambda batch: 1 - is_dominant(batch.scores, batch.mask)",
    },
    "evaluation.attention_tests": {
        "PER_TEXT": "lambda held: 1 - held.output.attention.amax(1)",
        "COMPARED": "lambda own, other: 1 - to_array(prediction_change(own.logits, other.logits))",
    },
}
"""What a user writes into the tables of the files of metrics: the table and the function of a metric of its name."""

TRIAL = """
import importlib.machinery as machinery
import importlib.util
import json
import sys
from dataclasses import replace

# Every package whose folder has one more file in it, as if it lay there, and every file with a change in it.
more, changed, support = (json.loads(argument) for argument in sys.argv[1:])
sys.path.append(support)
find = machinery.PathFinder.find_spec

def as_changed(name, path=None, target=None):
    if name in changed:
        return importlib.util.spec_from_file_location(name, changed[name])
    spec = find(name, path, target)
    if name in more:
        spec.submodule_search_locations.append(more[name])
    return spec

machinery.PathFinder.find_spec = as_changed

import attn_lightning.backbone.normalizers as normalizers
from attn_lightning.commands.validation import Validator
from attn_lightning.evaluation.catalog import FAMILIES, chosen_explainers
from attn_lightning.evaluation.naming import declared
from support import rationales
from support.texts import small_model
import attn_lightning.data, attn_lightning.methods

class Squared(normalizers.Softmax):
    '''A class in the file of normalizers.'''

Squared.__module__ = normalizers.__name__
normalizers.Squared = Squared

options = ["--data=MyTexts", "--method=Mine", "--model.backbone.normalizer=Squared"]
config = Validator().parse(["fit", *options])

subject, explained = rationales.question(erased=1)
subject = replace(subject, model=small_model(num_classes=2))
cheap = {
    "robustness": {"embedding_epsilons": (), "substitutions": (), "attacks": ("one_step",)},
    "attention_tests": {
        "num_permutations": 2, "adversarial": False, "diagnostic": False,
        "others": {"other": small_model(num_classes=2)},
    },
}
rows = [
    (family, row.metric, row.value, declared(f"evaluation/{family}/attention/{row.metric}").meaning)
    for family in (
        "sparsity", "plausibility", "faithfulness", "calibration", "robustness", "selective", "attention_tests"
    )
    for row in FAMILIES[family](**cheap.get(family, {})).run(subject, explained, rationales.no_progress)
    if row.explainer in ("rationale", "model")
]
print(json.dumps({
    "rows": rows,
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
    for module, tables in METRICS.items():
        source = (PACKAGE / f"{module.replace('.', '/')}.py").read_text("utf-8")
        for table, function in tables.items():
            entry = f'    Measure("mine_{table.lower()}", "of mine", higher_is_better=None): ({function}),\n'
            source, found = re.subn(rf"(?m)^{table}: .*= {{\n", lambda line, entry=entry: line[0] + entry, source)
            assert found == 1
        (tmp_path / f"{module}.py").write_text(source, "utf-8")
    changed = {f"attn_lightning.{module}": str(tmp_path / f"{module}.py") for module in METRICS}
    arguments = [json.dumps(argument) for argument in (folders, changed, str(REPOSITORY / "tests"))]
    command = [sys.executable, "-c", TRIAL, *arguments]
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
    check_metrics(found["rows"])


def check_metrics(rows) -> None:
    """Every metric that was put into a table is measured and declared, and so are the others."""
    values = {(family, metric): value for family, metric, value, _ in rows}
    mine = {
        (module.rpartition(".")[2], f"mine_{table.lower()}") for module, tables in METRICS.items() for table in tables
    }
    assert mine <= set(values)
    assert {meaning for family, metric, _, meaning in rows if (family, metric) in mine} == {"of mine"}
    marks = [rationale.sum() for rationale in Documents().rationales]
    assert values["plausibility", "mine_over_all"] == sum(marks)
    assert values["plausibility", "mine_per_document"] == pytest.approx(np.mean(marks))
    # The mean over the fractions comes with it; what is the other way round of one that is there sums with it to 1.
    area = values["faithfulness", "aopc_comprehensiveness"]
    assert values["faithfulness", "aopc_mine_per_fraction"] == pytest.approx(1 + area)
    unchanged = values["robustness", "unchanged_area"]
    assert values["robustness", "mine_curves_area"] == pytest.approx(1 - unchanged)
    assert 0 < values["calibration", "mine_per_example"] < 1
    assert values["selective", "mine_per_example"] == pytest.approx(1 - values["selective", "evidence_weight"])
    known = sum(marked > 0 and label >= 0 for marked, label in zip(marks, Documents().labels, strict=True))
    assert values["selective", "mine_counted"] == known - values["selective", "dominant"]
    largest = values["attention_tests", "max_attention"]
    assert values["attention_tests", "mine_per_text"] == pytest.approx(1 - largest, abs=1e-6)
    change = values["attention_tests", "prediction_change"]
    assert values["attention_tests", "mine_compared"] == pytest.approx(1 - change, abs=1e-6)
    agrees = values["faithfulness", "post_hoc_accuracy"]
    assert values["faithfulness", "mine_per_count"] == pytest.approx(1 - agrees)


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
        ("micro_f1", "metrics/plausibility.py"),
        ("comprehensiveness", "metrics/faithfulness.py"),
        ("is_dominant", "metrics/selective.py"),
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
