"""From a model and data to what is measured: options, splits and subsets."""

import io
import json
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from rich.console import Console

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import Average
from attn_lightning.data.corpora import TextFiles
from attn_lightning.data.text import UNKNOWN_ID
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.catalog import chosen_explainers, chosen_families
from attn_lightning.evaluation.families.attention_tests import AttentionTests
from attn_lightning.evaluation.runner import TABLES, EvaluatedModel, EvaluationOptions, evaluate, subject_of
from attn_lightning.evaluation.suite import Plan
from attn_lightning.module import AttentionModule
from support.training import planted


def untrained(data, backbone=AttentionClassifier, **spec):
    """A model of the data, which is made ready, with the same random weights every time."""
    data.prepare_data()
    data.setup()
    torch.manual_seed(0)
    module = AttentionModule(partial(backbone, encoder=Average))
    module.build(replace(data.spec, **spec))
    module.tokenizer_state = data.tokenizer.to_str()
    return module.eval()


@pytest.fixture(scope="module")
def evaluated():
    data = planted()
    return EvaluatedModel(untrained(data), data, "digest", "best")


@pytest.mark.parametrize("name", ["max_examples", "max_tokens", "batch_size", "token_budget"])
def test_sizes_are_1_or_more(name):
    with pytest.raises(ConfigurationError, match=f"`{name}` to be a finite number at least 1, but got 0"):
        EvaluationOptions(**{name: 0})


def test_the_training_split_is_the_models_own_or_none(evaluated):
    subject, notes = subject_of(evaluated, EvaluationOptions())
    assert notes == []
    assert (len(subject.examples), len(subject.training)) == (16, 41)
    assert subject.erased == UNKNOWN_ID
    foreign = EvaluatedModel(evaluated.module, evaluated.data, "digest", "best", own=False)
    assert subject_of(foreign, EvaluationOptions())[0].training is None


def test_a_subset_depends_on_its_seed_alone(evaluated):
    def rows(seed):
        subject, _ = subject_of(evaluated, EvaluationOptions(max_examples=5, seed=seed))
        return subject.examples.rows.tolist()

    assert rows(0) == rows(0) != rows(1)
    assert len(set(rows(0))) == 5


@pytest.mark.parametrize("size", [None, 10])
def test_texts_that_are_too_long_are_left_out_and_counted(evaluated, size):
    whole, _ = subject_of(evaluated, EvaluationOptions(max_examples=size))
    lengths = np.asarray(whole.examples.lengths)
    rows = np.arange(16) if size is None else whole.examples.rows
    most = int(np.median(lengths))
    subject, notes = subject_of(evaluated, EvaluationOptions(max_examples=size, max_tokens=most))
    assert subject.examples.rows.tolist() == rows[lengths <= most].tolist()
    longer = int((lengths > most).sum())
    assert longer > 0
    assert notes[0].startswith(
        f"{longer} of {len(lengths)} texts are longer than {most} tokens (`max_tokens`), the longest"
    )
    assert subject_of(evaluated, EvaluationOptions(max_examples=size, max_tokens=None))[1] == []
    with pytest.raises(ConfigurationError, match=f"all {len(lengths)} of {len(lengths)} texts"):
        subject_of(evaluated, EvaluationOptions(max_examples=size, max_tokens=1))


def test_a_split_that_is_not_there_is_refused_with_those_that_are(evaluated):
    with pytest.raises(ConfigurationError, match="out of train, validation, test, but got 'dev'"):
        subject_of(evaluated, EvaluationOptions(split="dev"))


def test_an_evaluation_names_its_folder_by_model_data_split_and_size(evaluated, tmp_path):
    plan = Plan(chosen_families("calibration"), {})
    options = EvaluationOptions(max_examples=6, untrained=False, linear=False)
    summary, folder = evaluate(evaluated, plan, options, tmp_path, None)
    assert folder == tmp_path / "best-planted-test-6"
    assert (folder / TABLES).exists()
    assert summary.flat()


def test_it_says_how_long_it_will_take_before_anything_else_and_not_when_nothing_is_left(
    evaluated, tmp_path, monkeypatch
):
    monkeypatch.setattr("attn_lightning.evaluation.estimate.FEWEST", 2)
    plan = Plan(chosen_families("calibration"), chosen_explainers("attention"))
    options = EvaluationOptions(linear=False)

    def said(**how):
        console = Console(file=io.StringIO(), width=100)
        evaluate(evaluated, plan, options, tmp_path, console, **how)
        return console.file.getvalue().splitlines()

    assert said(quiet=True) == []
    folder = tmp_path / "best-planted-test"
    (folder / "calibration.json").unlink()
    first, *others = said()
    assert re.match(r"note: this will take about \d+ s; ", first)
    assert any("kept" in line for line in others)
    assert not any("this will take" in line for line in said())


def test_rationales_that_were_marked_anew_are_measured_anew(tmp_path):
    """The same texts and labels in a file with other marks."""

    def measured(marks):
        path = tmp_path / "test.jsonl"
        rows = [{"words": ["a", "fine", "day"], "label": label, "rationale": marks} for label in (0, 1) * 4]
        path.write_text("\n".join(map(json.dumps, rows)))
        columns = {"tokens_column": "words", "rationale_column": "rationale"}
        data = TextFiles(train=path, validation=path, test=path, cache=tmp_path, **columns)
        plan = Plan(chosen_families("plausibility"), chosen_explainers("attention"))
        options = EvaluationOptions(untrained=False, linear=False)
        summary, folder = evaluate(
            EvaluatedModel(untrained(data), data, "digest", "best"), plan, options, tmp_path / "found", None
        )
        return summary.flat()["plausibility/attention/rationale_mass"], folder.name

    (first, folder), (other, anew) = measured([1, 0, 0]), measured([0, 1, 1])
    assert first + other == pytest.approx(1, abs=1e-6)
    assert anew == f"{folder}-1"
    assert measured([1, 0, 0]) == (first, folder)


def test_what_was_measured_without_the_training_split_is_measured_again_with_it(evaluated, tmp_path):
    plan = Plan([AttentionTests(num_permutations=2, adversarial=False)], chosen_explainers("attention"))
    options = EvaluationOptions(untrained=False, linear=False)

    def diagnosed(own):
        summary, _ = evaluate(replace(evaluated, own=own), plan, options, tmp_path, None)
        return "attention_tests/diagnostic_accuracy[weights=uniform]" in summary.flat()

    assert not diagnosed(own=False)
    assert diagnosed(own=True)
    assert not diagnosed(own=False)


def test_what_is_fitted_beside_a_model_learns_from_the_labels_that_it_was_shown(evaluated, tmp_path):
    plan = Plan(chosen_families("shortcut_probe"), chosen_explainers("attention"))
    options = EvaluationOptions(untrained=False, linear=False)

    def measured(**shown):
        data = planted(**shown)
        data.prepare_data()
        data.setup()
        found = replace(evaluated, data=data)
        subject, _ = subject_of(found, options)
        labels = subject.training[list(range(len(subject.training)))].labels.tolist()
        assert labels == [data.dataset("train")["label"][row] for row in data.labeled_rows.tolist()]
        summary, folder = evaluate(found, plan, options, tmp_path, None)
        assert summary.flat()["shortcut_probe/majority_rate"] is not None
        return folder.name, len(labels)

    whole, every = measured()
    assert measured(labels_per_class=3) == (f"{whole}-1", 6), "not taken for what was measured with all labels"
    assert measured(labels_per_class=3, label_seed=1) == (f"{whole}-2", 6), "nor with other texts"
    assert measured() == (whole, every)


class Letters(AttentionClassifier):
    """A model that can learn words after its training, as one that reads letters does."""

    def know(self, vocabulary):
        table = self.embedding.weight.data
        new = torch.ones(max(0, len(vocabulary) - len(table)), table.shape[1])
        self.embedding = torch.nn.Embedding.from_pretrained(torch.cat([table, new]), padding_idx=0)


def test_every_model_of_an_evaluation_knows_the_new_words_of_other_data(tmp_path):
    def module():
        return untrained(data, Letters, vocabulary=())

    data = planted(unknown="keep")
    data.prepare_data()
    data.setup()
    path = tmp_path / "mine.jsonl"
    rows = [{"text": f"word{number} never seen", "label": name} for number in range(4) for name in data.label_names]
    path.write_text("\n".join(map(json.dumps, rows)))
    other = TextFiles(train=path, validation=path, test=path, cache=tmp_path)
    other.prepare_data()
    other.setup()
    tests = AttentionTests(diagnostic=False, adversarial=False, others={"seed": module().backbone})
    plan = Plan([*chosen_families("calibration"), tests], chosen_explainers("attention"))
    evaluated = EvaluatedModel(module(), other, "digest", "best", own=False)
    summary, _ = evaluate(evaluated, plan, EvaluationOptions(max_examples=5), tmp_path / "found", None)
    for findings in (summary.trained, summary.untrained):
        assert {row.n for row in findings.rows["calibration"]} == {5}
        assert any(row.setting.get("other") == "seed" for row in findings.rows["attention_tests"])
