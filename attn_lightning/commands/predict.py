"""`predict`: label, probability and attention per word for raw texts, from a checkpoint alone."""

import operator
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from attn_lightning import run_folder
from attn_lightning.checkpoint.trust import trusted_classes
from attn_lightning.checks import check_numbers
from attn_lightning.commands.arguments import add_trust
from attn_lightning.commands.one_line import OneLineArguments
from attn_lightning.commands.processes import is_first, is_one_of_several
from attn_lightning.console import say
from attn_lightning.data.formats import LINES, FileOptions, is_delimited
from attn_lightning.data.records import Columns, text_of, words_of
from attn_lightning.data.sources import Split, from_files
from attn_lightning.data.text import valid_unicode
from attn_lightning.errors import ConfigurationError, DataFormatError
from attn_lightning.evaluation.prediction import CHUNK, Prediction, Predictor, prediction_table, write
from attn_lightning.locks import patient_claim
from attn_lightning.report.prediction_page import MOST_DOCUMENTS, AnsweringModel, write_prediction_page

Given = tuple[str | list[str], str | None]
"""A text, or its words, and its second text where the model is one of pairs."""


def _parser() -> ArgumentParser:
    """Plain argparse: a text may be anything, so nothing may try to read it as YAML."""
    parser = OneLineArguments("predict", description=__doc__)
    parser.add_argument(
        "--ckpt_path",
        type=Path,
        action="append",
        required=True,
        help="a checkpoint, or a run folder, whose best one is taken; vocabulary, tokeniser and label names are in it; "
        "given several times, the models answer one after the other, and stand side by side in --html",
    )
    parser.add_argument("--text", action="append", default=[], help="a text to predict; may be given several times")
    parser.add_argument(
        "--question", action="append", default=[], help="the second text of each --text, for a model of pairs"
    )
    parser.add_argument("--question_column", help="the column of --input with the second text of each row")
    parser.add_argument("--input", type=Path, help="a CSV, JSON, Parquet or text file (.gz too) with a text per row")
    parser.add_argument("--text_column", default="text", help="the column of --input with the text (default: text)")
    parser.add_argument(
        "--tokens_column",
        help="the column of --input with the text cut into words, for a model that was trained on such a column; "
        "without it the text is cut at spaces, and what is no known word then as that data cuts raw text",
    )
    parser.add_argument("--delimiter", help="between the fields of a line of --input (default: found)")
    parser.add_argument("--encoding", help="of --input, latin-1 for example (default: UTF-8 or its byte order mark)")
    parser.add_argument("--columns", nargs="+", help="names of the columns of an --input without a header")
    parser.add_argument(
        "--output", type=Path, help="a new .jsonl or .parquet file for the predictions; without it the terminal"
    )
    parser.add_argument(
        "--html",
        type=Path,
        help="a new .html file: the texts with the attention on their words, two models side by side, the page of "
        f"`report`; the first {MOST_DOCUMENTS:,} texts",
    )
    parser.add_argument("--batch_size", type=int, default=128, help="texts per pass through the model (default: 128)")
    parser.add_argument("--device", default="cpu", help="where the model runs: cpu, cuda, mps (default: cpu)")
    add_trust(parser)
    return parser


def predict_command(arguments: Sequence[str]) -> int:
    """Run `predict`.

    Args:
        arguments: its options.

    Returns:
        0; errors are exceptions.
    """
    options = _parser().parse_args(list(arguments))
    _check(options)
    # Only a file can be written twice; the terminal of a process is its own.
    target = options.output or options.html
    if target is not None:
        with _alone(target):
            # Looked at again, because another may have been at work while this one waited.
            return 0 if _is_written(target) else _predict(options)
    if is_first():
        return _predict(options)
    say("the first process of this job prints the predictions; `--output` keeps them in a file", error=True)
    return 0


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Let one process of a job after the other do its work; a process that is alone waits for nobody."""
    if not is_one_of_several():
        yield
        return
    # Each process of a job was started with this command and would write the same file at the same time.
    claim = patient_claim(output.with_name(f".{output.name}.lock"))
    try:
        yield
    finally:
        claim.release(remove=True)


def _is_written(output: Path) -> bool:
    """Whether another process of this job, which began when this one did, has written the file."""
    # By time and not by existence alone: an older file of the same name is not what this job was asked for.
    found = is_one_of_several() and output.exists() and output.stat().st_mtime >= psutil.Process().create_time()
    if found:
        say(f"{output} is written by another process of this job")
    return found


def _predict(options: Namespace) -> int:
    replaced = Counter[str]()
    # All paths first: the second model may take as long as the first before its path turns out to be wrong.
    checkpoints = [checkpoint_of(path) for path in options.ckpt_path]
    trusted = trusted_classes(options.trust)
    if options.html is not None:
        _write_page(checkpoints, options, trusted, replaced)
    elif options.output is not None:
        answers = _answers(Predictor(checkpoints[0], options.device, trusted), options, replaced)
        say(f"{write(answers, options.output)} predictions in {options.output}")
    else:
        console = Console()
        for place, checkpoint in enumerate(checkpoints):
            if len(checkpoints) > 1:
                say(f"{checkpoint}:")
            # What is replaced in a text is counted once, however many models read it.
            counted = replaced if place == 0 else Counter[str]()
            for answer in _answers(Predictor(checkpoint, options.device, trusted), options, counted):
                console.print(prediction_table(answer))
    if replaced["texts"]:
        say(f"characters that are no Unicode were replaced in {replaced['texts']} texts", error=True)
    return 0


def _check(options: Namespace) -> None:
    # Two booleans that are equal: both were given, or none.
    if bool(options.text) == (options.input is not None):
        raise ConfigurationError("Expected either `--text` or `--input`, but got both or none; give one of them.")
    if len(options.question) not in (0, len(options.text)):
        raise ConfigurationError(
            f"Expected a `--question` for each `--text`, but got {len(options.question)} for {len(options.text)}; give "
            "one for each."
        )
    if options.question_column is not None and options.input is None:
        raise ConfigurationError("Expected `--input` with `--question_column`, but got none; name the file.")
    check_numbers(at_least=1, advice="leave it out", **{"--batch_size": options.batch_size})
    if options.tokens_column is not None and options.input is None:
        raise ConfigurationError("Expected `--input` with `--tokens_column`, but got none; name the file.")
    if options.html is not None and options.output is not None:
        raise ConfigurationError("Expected `--html` or `--output`, but got both; run the command once for each.")
    if options.output is not None and len(options.ckpt_path) > 1:
        raise ConfigurationError(
            f"Expected one `--ckpt_path` with `--output`, but got {len(options.ckpt_path)}; run it once for each."
        )
    if options.html is not None and options.html.suffix != ".html":
        raise ConfigurationError(f"Expected `--html` to end in .html, but got {options.html.name}; rename it.")
    if options.html is not None and options.html.exists() and not _is_written(options.html):
        raise ConfigurationError(
            f"Expected a new file for `--html`, but {options.html} exists and is not overwritten; choose another."
        )
    output = options.output
    if output is not None and output.suffix not in (".jsonl", ".parquet"):
        raise ConfigurationError(f"Expected `--output` to end in .jsonl or .parquet, but got {output.name}; rename it.")
    if output is not None and output.exists() and not _is_written(output):
        raise ConfigurationError(
            f"Expected a new file for `--output`, but {output} exists and is not overwritten; choose another."
        )


def checkpoint_of(path: Path) -> Path:
    """The checkpoint that is meant: the file itself, or of a run folder the best one, else the last.

    Raises:
        ConfigurationError: the folder has none.
    """
    if not path.is_dir():
        return path
    # A training that was interrupted before its first validation has a last one alone.
    for name in ("best.ckpt", "last.ckpt"):
        if (found := path / run_folder.CHECKPOINTS / name).is_file():
            return found
    raise ConfigurationError(
        f"Expected a checkpoint or a run folder with {run_folder.CHECKPOINTS}/best.ckpt, but {path} has none; name a "
        "run that has been trained."
    )


def _write_page(checkpoints: Sequence[Path], options: Namespace, trusted: set[str], replaced: Counter[str]) -> None:
    # Read once: what comes through a pipe cannot be read again by the next model.
    texts = list(islice(_texts(options), MOST_DOCUMENTS + 1))
    notes = [f"the first {MOST_DOCUMENTS:,} texts"] if len(texts) > MOST_DOCUMENTS else []
    clean = [_both_valid(pair) for pair in texts[:MOST_DOCUMENTS]]
    replaced["texts"] += sum(map(operator.ne, clean, texts))
    models = []
    for checkpoint in checkpoints:
        predictor = Predictor(checkpoint, options.device, trusted)
        answers = [
            answer
            for start in range(0, len(clean), CHUNK)
            for answer in _predicted(predictor, clean[start : start + CHUNK], options.batch_size)
        ]
        models.append(AnsweringModel(_label(checkpoint), str(checkpoint), predictor.spec.label_names, answers))
    write_prediction_page(models, options.html, notes)
    say(f"page: {options.html}")


def _label(checkpoint: Path) -> str:
    """The run of a checkpoint; the file where it lies in none."""
    # Resolved: from inside a run folder `best.ckpt` has no parents to be named after.
    folder = checkpoint.resolve().parent
    run = folder.parent
    return f"{run.parent.name}/{run.name}" if folder.name == run_folder.CHECKPOINTS else checkpoint.stem


def _texts(options: Namespace) -> Iterator[Given]:
    """The texts, each with its second text or None."""
    questions = options.question or [None] * len(options.text)
    return zip(options.text, questions, strict=True) if options.input is None else read_texts(options.input, options)


def _both_valid(given: Given) -> Given:
    text, second = given
    return _valid(text), None if second is None else valid_unicode(second)


def _predicted(predictor: Predictor, given: Sequence[Given], batch_size: int) -> list[Prediction]:
    seconds = [second for _, second in given if second is not None]
    texts: Any = [text for text, _ in given]
    return predictor.predict(texts, batch_size, seconds or None)


def _answers(predictor: Predictor, options: Namespace, replaced: Counter[str]) -> Iterator[Prediction]:
    rows = _texts(options)
    # In chunks, so that a file of a million texts is never in memory as a whole.
    while chunk := list(islice(rows, CHUNK)):
        clean = [_both_valid(pair) for pair in chunk]
        replaced["texts"] += sum(map(operator.ne, clean, chunk))
        yield from _predicted(predictor, clean, options.batch_size)


def _valid(text: str | list[str]) -> str | list[str]:
    """Bytes of an argument that are no UTF-8 come as halves of surrogate pairs, as JSON can hold them too."""
    return valid_unicode(text) if isinstance(text, str) else [valid_unicode(word) for word in text]


def read_texts(path: Path, options: Namespace) -> Iterator[tuple[str | list[str], str | None]]:
    """The texts of a file, or their words where there is a column of words, each with its second text or None.

    Raises:
        ConfigurationError: the file is missing or of another format.
        DataFormatError: the column is missing or a cell is not what it should be; names the file and the line.
    """
    columns = tuple(options.columns) if options.columns else None
    read_as = FileOptions(options.delimiter, options.encoding, columns, prefix="--")
    split = from_files({"input": path}, read_as=read_as).splits["input"]
    if Path(path.name.removesuffix(".gz")).suffix in LINES and not is_delimited(path, read_as):
        # A file of plain texts has the same name, and would lose the first word of every text without a sign.
        say(f"{path}: lines are `LABEL text`, whose first word is not read; `--columns text` reads it", error=True)
    # `predict` has options of its own for columns, and no configuration in which they could be named.
    split = replace(split, advice=f"{split.advice.replace(Split.advice, 'name it with `--text_column`')}")
    wanted, number = Columns(text=options.text_column, tokens=options.tokens_column), 0
    for number, row in split.rows():
        words = words_of(row, wanted, split, number)
        question = options.question_column
        second = None if question is None else text_of(row, question, split, number)
        yield (text_of(row, options.text_column, split, number) if words is None else words), second
    # Found out at the end of the loop, since reading a file once is all that a pipe allows.
    if number == 0:
        raise DataFormatError(f"Expected texts in {path}, but it has no rows.")
