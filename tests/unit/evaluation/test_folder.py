"""What an evaluation leaves behind: parts that come back as they were, and folders that never mix."""

import json
import os

import numpy as np
import pytest

from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.folder import EvaluationFolder, Parts, explained_from
from attn_lightning.evaluation.subject import Ragged


def test_what_is_kept_comes_back_and_nothing_else(tmp_path):
    parts, lengths = Parts(tmp_path), np.array([2, 1])
    assert parts.clean() is None
    assert parts.explanation("gradient", lengths) is None
    assert parts.family("mass", {}) is None
    parts.keep_clean(np.array([[0.25, 0.75], [1.0, 0.0]]), np.array([1, 0]))
    parts.keep_explanation("gradient-2", Ragged(np.array([0.5, -1.0, 2.0]), lengths))
    found = explained_from(parts, {"gradient": "gradient-2"}, lengths)
    assert found.labels.tolist() == [1, 0]
    assert [found.explanations["gradient"][row].tolist() for row in range(2)] == [[0.5, -1.0], [2.0]]


def test_a_family_measured_with_other_settings_is_not_found(tmp_path):
    parts = Parts(tmp_path)
    parts.keep_family("mass", {"scale": 1.0}, [{"metric": "mean"}])
    assert parts.family("mass", {"scale": 2.0}) is None
    assert parts.family("mass", {"scale": 1.0})["rows"] == [{"metric": "mean"}]


def test_a_folder_belongs_to_one_evaluation(tmp_path):
    with EvaluationFolder(tmp_path, "best-x-test", {"seed": 0}) as first:
        pass
    with EvaluationFolder(tmp_path, "best-x-test", {"seed": 1}) as second:
        pass
    with EvaluationFolder(tmp_path, "best-x-test", {"seed": 0}) as again:
        pass
    assert (first.path.name, second.path.name, again.path.name) == ("best-x-test", "best-x-test-1", "best-x-test")
    assert (first.resumed, second.resumed, again.resumed) == (False, False, True)
    assert json.loads((second.path / "evaluation.json").read_text())["seed"] == 1


def test_two_never_evaluate_into_one_folder(tmp_path):
    """The lock belongs to the open file, so that two holders in one process exclude each other like two processes."""
    with EvaluationFolder(tmp_path, "x", {}), pytest.raises(ConfigurationError, match=f"process {os.getpid()} on"):
        EvaluationFolder(tmp_path, "x", {})
    EvaluationFolder(tmp_path, "x", {}).release()
