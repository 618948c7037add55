"""Predictions from a checkpoint alone: any text, any file, nothing lost and nothing let through to the terminal."""

import csv
import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from attn_lightning.commands.predict import checkpoint_of
from attn_lightning.console import printable
from attn_lightning.data.text import TextTokenizer
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation import prediction
from attn_lightning.evaluation.prediction import Prediction
from support.checkpoints import check, save

TEXTS = ["null", "[a, b]", "-5", "", "true", "  ", "\x1b[31mred", "good 😀 film", 'a,b\n"c"', "{x: 1}"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save(TextTokenizer.train(["good film", "bad film", "dull long film"]), tmp_path_factory.mktemp("model"))


def read(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


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


@pytest.fixture(scope="module")
def of_words(tmp_path_factory):
    """A model whose training texts were lists of words."""
    return save(TextTokenizer.train([["<good>", "film"], ["<bad>", "New York"]]), tmp_path_factory.mktemp("words"))


WORDS = [["<good>", "film"], ["a", "<bad>", "New York"], []]


def test_words_stay_as_they_are(cli, of_words, tmp_path):
    target = tmp_path / "out.jsonl"
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"w": words}) + "\n" for words in WORDS))
    command = ("predict", "--ckpt_path", of_words, "--input", tmp_path / "in.jsonl", "--tokens_column=w")
    outcome = cli(*command, "--output", target)
    assert outcome.code == 0, outcome.err
    answers = read(target)
    assert [answer["words"] for answer in answers] == [*WORDS[:2], [""]]
    assert [answer["unknown"] for answer in answers] == [[False, False], [True, False, False], [True]]
    for answer in answers[:2]:
        check(Prediction(**answer))


def test_words_for_a_model_of_raw_text_are_refused(cli, checkpoint, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"w": ["a", "b"]}\n')
    common = ("predict", "--ckpt_path", checkpoint, "--tokens_column=w")
    outcome = cli(*common, "--input", tmp_path / "in.jsonl")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "--text_column" in outcome.err
    assert "--input" in cli(*common, "--text=a").err


def test_half_a_surrogate_pair_is_replaced_and_counted(cli, checkpoint, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "a good film \\ud83d"}\n{"text": "a bad film"}\n')
    target = tmp_path / "out.jsonl"
    outcome = cli("predict", "--ckpt_path", checkpoint, "--input", tmp_path / "in.jsonl", "--output", target)
    assert outcome.code == 0, outcome.err
    assert "replaced in 1 texts" in outcome.err
    assert read(target)[0]["text"] == "a good film \ufffd"
    # Bytes of an argument that are no UTF-8 arrive like this.
    outcome = cli("predict", "--ckpt_path", checkpoint, "--text", "good \udcff film")
    assert (outcome.code, "replaced in 1 texts" in outcome.err) == (0, True)


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("id;text\n1;good, film\n", ()),
        ("1|good, film\n", ("--delimiter=|", "--columns", "id", "text")),
        ("id;text\n1;good, film\n".encode("utf-16"), ()),
        ("text;id\ngood, film;é\n".encode("latin-1"), ("--encoding=latin-1",)),
    ],
)
def test_files_as_they_are_written(cli, checkpoint, tmp_path, content, options):
    path, target = tmp_path / "in.csv", tmp_path / "out.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    outcome = cli("predict", "--ckpt_path", checkpoint, "--input", path, "--output", target, *options)
    assert outcome.code == 0, outcome.err
    assert read(target)[0]["text"] == "good, film"


def test_the_first_word_of_a_line_is_not_lost_without_a_sign(cli, checkpoint, tmp_path):
    path, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    path.write_text("good film\n")
    outcome = cli("predict", "--ckpt_path", checkpoint, "--input", path, "--output", target)
    assert (read(target)[0]["text"], "whose first word is not read; `--columns text`" in outcome.err) == ("film", True)
    target.unlink()
    outcome = cli("predict", "--ckpt_path", checkpoint, "--input", path, "--output", target, "--columns", "text")
    assert (read(target)[0]["text"], outcome.err) == ("good film", "")


def test_what_is_not_read_names_the_option_of_this_command(cli, checkpoint, tmp_path):
    (tmp_path / "in.csv").write_bytes(b"body\ncaf\xe9\n")
    outcome = cli("predict", "--ckpt_path", checkpoint, "--input", tmp_path / "in.csv")
    assert "`--encoding`" in outcome.err
    (tmp_path / "in.csv").write_bytes(b"body\ncoffee\n")
    outcome = cli("predict", "--ckpt_path", checkpoint, "--input", tmp_path / "in.csv")
    assert all(words in outcome.err for words in ("'body'", "`--text_column`", "`--columns`", "`--delimiter`"))


def test_a_run_folder_stands_for_its_best_checkpoint_else_its_last(tmp_path):
    run = tmp_path / "runs" / "mine" / "v"
    (run / "checkpoints").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"run folder with checkpoints/best\.ckpt, but .* has none"):
        checkpoint_of(run)
    for name in ("last", "best"):
        (run / "checkpoints" / f"{name}.ckpt").touch()
        assert checkpoint_of(run) == run / "checkpoints" / f"{name}.ckpt"
    assert checkpoint_of(run / "checkpoints" / "last.ckpt") == run / "checkpoints" / "last.ckpt"


def test_a_page_of_several_models_with_texts_that_are_no_markup(cli, checkpoint, tmp_path):
    page = tmp_path / "new" / "page.html"
    hostile = ["</script><script>alert(1)</script> good", "\u202efilm\x1b[31m"]
    options = [part for text in (*TEXTS, *hostile) for part in (f"--text={text}",)]
    outcome = cli("predict", "--ckpt_path", checkpoint, "--ckpt_path", checkpoint, *options, "--html", page)
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[-1] == f"page: {page}"
    html = page.read_text("utf-8")
    assert html.count("</script>") == html.count("<script")
    assert "alert(1)" not in html
    assert cli("predict", "--ckpt_path", checkpoint, "--text=a", "--html", page).err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--html=x.html", "--output=x.jsonl"], "but got both"),
        (["--html=x.txt"], "to end in .html"),
        (["--output=x.jsonl", "--ckpt_path=b"], "Expected one `--ckpt_path` with `--output`, but got 2"),
    ],
)
def test_options_that_exclude_each_other(cli, options, said):
    outcome = cli("predict", "--ckpt_path=a", "--text=a", *options)
    assert outcome.code == 1
    assert said in outcome.err
    assert outcome.err.count("\n") == 1


def test_several_models_answer_one_after_the_other(cli, checkpoint):
    outcome = cli("predict", "--ckpt_path", checkpoint, "--ckpt_path", checkpoint, "--text", "good \udc80film")
    assert outcome.out.count("p = ") == 2
    assert outcome.out.count(f"{checkpoint.name}:") == 2
    assert "replaced in 1 texts" in outcome.err
