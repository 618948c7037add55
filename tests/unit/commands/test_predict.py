"""Predictions from a checkpoint alone: any text, any file, nothing lost and nothing let through to the terminal."""

import csv
import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from attn_lightning.backbone.encoders import Average
from attn_lightning.console import printable
from attn_lightning.data.text import TextTokenizer
from attn_lightning.evaluation import prediction
from attn_lightning.evaluation.prediction import Prediction, Predictor, prediction_table
from attn_lightning.module import AttentionModule
from attn_lightning.types import DataSpec

TEXTS = ["null", "[a, b]", "-5", "", "true", "  ", "\x1b[31mred", "good 😀 film", 'a,b\n"c"', "{x: 1}"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model of three classes that was not trained, saved as Lightning does."""
    tokenizer = TextTokenizer.train(["good film", "bad film", "dull long film"])
    torch.manual_seed(0)
    module = AttentionModule()
    module.build(DataSpec(3, len(tokenizer), 8, ("bad", "fair", "very good")))
    module.tokenizer_state = tokenizer.to_str()
    contents = {
        "state_dict": module.state_dict(),
        "hyper_parameters": {},
        "pytorch-lightning_version": "2.6.0",
        "epoch": 0,
        "global_step": 0,
        "loops": {},
    }
    module.on_save_checkpoint(contents)
    path = tmp_path_factory.mktemp("model") / "best.ckpt"
    torch.save(contents, path)
    return path


@pytest.fixture(scope="module")
def predictor(checkpoint):
    return Predictor(checkpoint)


def read(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def check(answer: Prediction) -> None:
    assert answer.label in ("bad", "fair", "very good")
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert answer.probability == max(answer.probabilities.values()) == answer.probabilities[answer.label]
    assert sum(answer.attention) == pytest.approx(1, abs=1e-5)
    counts = {len(answer.words), len(answer.start), len(answer.end), len(answer.attention), len(answer.unknown)}
    assert len(counts) == 1
    pieces = [answer.text[start:end] for start, end in zip(answer.start, answer.end, strict=True)]
    assert pieces == answer.words


@pytest.mark.parametrize("text", TEXTS, ids=repr)
def test_any_text(predictor, text):
    (answer,) = predictor.predict([text])
    assert answer.text == text
    check(answer)


def test_known_and_unknown_words(predictor):
    (answer,) = predictor.predict(["Good unheard film"])
    assert answer.words == ["Good", "unheard", "film"]
    assert answer.unknown == [False, True, False]
    assert not answer.truncated


def test_order_is_kept_and_batches_change_nothing(predictor):
    texts = [" ".join(["film"] * length) for length in (5, 1, 9, 3, 7, 2)]
    whole, single = predictor.predict(texts), predictor.predict(texts, batch_size=1)
    assert [answer.text for answer in whole] == texts
    for ours, alone in zip(whole, single, strict=True):
        np.testing.assert_allclose(ours.attention, alone.attention, atol=1e-6)
        assert ours.probability == pytest.approx(alone.probability, abs=1e-6)


def test_batches_are_bounded_in_tokens(predictor, monkeypatch):
    shapes = []
    monkeypatch.setattr("attn_lightning.evaluation.prediction.TOKEN_BUDGET", 10)
    monkeypatch.setattr(predictor.module.backbone, "embed", watched(predictor.module.backbone.embed, shapes))
    predictor.predict([" ".join(["film"] * length) for length in (4, 30, 2, 3, 5, 2)], batch_size=3)
    assert shapes == [(1, 30), (2, 5), (3, 3)]


def watched(function, shapes):
    def called(tokens):
        shapes.append(tuple(tokens.shape))
        return function(tokens)

    return called


def test_a_text_of_100000_words(predictor, monkeypatch):
    # Without the recurrence, which takes its time.
    monkeypatch.setattr(predictor.module.backbone, "encoder", Average(8))
    (answer,) = predictor.predict(["film " * 100_000])
    assert len(answer.words) == 100_000
    assert sum(answer.attention) == pytest.approx(1, abs=1e-3)
    table = prediction_table(answer)
    assert table.row_count == 200
    assert "100,000" in str(table.title)


def test_several_texts_on_the_command_line(cli, checkpoint):
    outcome = cli("predict", "--ckpt_path", checkpoint, "--text", "good film", "--text=-5", "--text", "bad")
    assert outcome.code == 0
    assert outcome.out.count("p = ") == 3
    assert "unknown" in outcome.out


def test_nothing_reaches_the_terminal_that_could_steer_it(cli, checkpoint):
    outcome = cli("predict", "--ckpt_path", checkpoint, "--text", "a\x1b[31mred\x07 \x9b2J \u202eabc [bold]x[/bold]")
    assert outcome.code == 0
    assert not set("\x1b\x07\x9b\u202e") & set(outcome.out)
    assert "bold" in outcome.out


def test_printable():
    assert printable("a\x1b[0m\tb\u200bé😀") == "a [0m b é😀"


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl", "jsonl.gz", "parquet"])
@pytest.mark.parametrize("output", ["jsonl", "parquet"])
def test_files_in_and_out(cli, checkpoint, tmp_path, kind, output):
    texts = [*TEXTS, *(f"film {number}" for number in range(30))]
    source, target = tmp_path / f"in.{kind}", tmp_path / "new" / f"out.{output}"
    store(source, texts)
    outcome = cli("predict", "--ckpt_path", checkpoint, "--input", source, "--text_column=review", "--output", target)
    assert outcome.code == 0, outcome.err
    assert f"{len(texts)} predictions" in outcome.out
    rows = read(target) if output == "jsonl" else pq.read_table(target).to_pylist()
    assert [row["text"] for row in rows] == texts
    for row in rows:
        row["probabilities"] = dict(row["probabilities"])
        check(Prediction(**row))
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def store(path, texts):
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"id": range(len(texts)), "review": texts}), path)
        return
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        if ".csv" in path.name:
            csv.writer(file).writerows([["id", "review"], *enumerate(texts)])
        else:
            file.writelines(json.dumps({"id": 1, "review": text}) + "\n" for text in texts)


def test_more_rows_than_are_read_at_a_time(cli, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("attn_lightning.commands.predict.CHUNK", 7)
    monkeypatch.setattr(prediction, "CHUNK", 7)
    texts = [f"film {'good ' * (number % 5)}{number}" for number in range(20)]
    store(tmp_path / "in.jsonl", texts)
    common = ("predict", "--ckpt_path", checkpoint, "--input", tmp_path / "in.jsonl", "--text_column=review")
    assert cli(*common, "--output", tmp_path / "out.parquet").code == 0
    assert pq.read_table(tmp_path / "out.parquet").column("text").to_pylist() == texts


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], "--text"),
        (["--text=a", "--input=b.csv"], "--text"),
        (["--text=a", "--batch_size=0"], "--batch_size"),
        (["--text=a", "--output=out.txt"], ".jsonl or .parquet"),
        (["--text=a", "--device=abacus"], "--device cpu"),
        (["--input=none.csv"], "none.csv"),
    ],
)
def test_bad_options(cli, checkpoint, options, text):
    outcome = cli("predict", "--ckpt_path", checkpoint, *options)
    assert outcome.code == 1
    assert outcome.err.startswith("error: ")
    assert text in outcome.err


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("a.csv", "review,id\ngood,1\n", ["'text'", "'review'", "--text_column"]),
        ("a.csv", "", ["a.csv", "no rows"]),
        ("a.csv", "text\n", ["a.csv", "no rows"]),
        ("a.jsonl", '{"text": "a"}\n{"text": 5}\n', ["a.jsonl, line 2", "5"]),
        ("a.jsonl", '{"text": "a"}\n{"text": null}\n', ["a.jsonl, line 2"]),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', ["a.jsonl", "line 2"]),
        ("a.csv.gz", "not gzip", ["a.csv.gz"]),
        ("a.xml", "<a/>", ["a.xml"]),
    ],
)
def test_bad_files_leave_no_output(cli, checkpoint, tmp_path, name, content, texts):
    (tmp_path / name).write_text(content)
    outcome = cli("predict", "--ckpt_path", checkpoint, "--input", tmp_path / name, "--output", tmp_path / "o.jsonl")
    assert outcome.code == 1, outcome.err
    for text in texts:
        assert text in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_output_is_never_overwritten(cli, checkpoint, tmp_path):
    target = tmp_path / "out.jsonl"
    target.write_text("precious")
    outcome = cli("predict", "--ckpt_path", checkpoint, "--text=a", "--output", target)
    assert outcome.code == 1
    assert "not overwritten" in outcome.err
    assert target.read_text() == "precious"


def test_output_where_nothing_can_be_written(cli, checkpoint, tmp_path):
    (tmp_path / "file").write_text("")
    outcome = cli("predict", "--ckpt_path", checkpoint, "--text=a", "--output", tmp_path / "file" / "out.jsonl")
    assert outcome.code == 1
    assert "--output" in outcome.err


def test_a_model_that_is_not_of_text(cli, checkpoint, tmp_path):
    contents = torch.load(checkpoint, weights_only=True)
    contents["attn_lightning"]["tokenizer"] = None
    torch.save(contents, tmp_path / "a.ckpt")
    outcome = cli("predict", "--ckpt_path", tmp_path / "a.ckpt", "--text=a")
    assert outcome.code == 1
    assert "tokenizer" in outcome.err


def test_the_run_predicts_as_it_tested(finished, cli, tmp_path):
    """The same words, attention and probabilities as in the run's own table of predictions."""
    rows = sorted(pq.read_table(finished / "predictions.parquet").to_pylist(), key=lambda row: row["row"])
    target = tmp_path / "out.parquet"
    store(tmp_path / "in.jsonl", [row["text"] for row in rows])
    options = ("--input", tmp_path / "in.jsonl", "--text_column=review", "--output", target)
    outcome = cli("predict", "--ckpt_path", finished / "checkpoints" / "best.ckpt", *options)
    assert outcome.code == 0, outcome.err
    for row, answer in zip(rows, pq.read_table(target).to_pylist(), strict=True):
        assert answer["start"] == row["start"]
        np.testing.assert_allclose(answer["attention"], row["attention"], atol=1e-6)
        np.testing.assert_allclose([value for _, value in answer["probabilities"]], row["probabilities"], atol=1e-6)
