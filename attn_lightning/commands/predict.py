"""`predict`: label, probability and attention per word for raw texts, from a checkpoint alone."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from rich.console import Console

from attn_lightning.data.sources import from_files
from attn_lightning.errors import ConfigurationError, DataFormatError
from attn_lightning.evaluation.prediction import CHUNK, Prediction, Predictor, prediction_table, write


def _parser() -> ArgumentParser:
    """Plain argparse: a text may be anything, so nothing may try to read it as YAML."""
    parser = ArgumentParser(prog="python -m attn_lightning predict", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--ckpt_path",
        type=Path,
        required=True,
        help="a checkpoint of a run folder; vocabulary, tokeniser and label names are in it",
    )
    parser.add_argument("--text", action="append", default=[], help="a text to predict; may be given several times")
    parser.add_argument("--input", type=Path, help="a CSV, JSONL or Parquet file (.gz too) with a text per row")
    parser.add_argument("--text_column", default="text", help="the column of --input with the text (default: text)")
    parser.add_argument(
        "--output", type=Path, help="a new .jsonl or .parquet file for the predictions; without it the terminal"
    )
    parser.add_argument("--batch_size", type=int, default=128, help="texts per pass through the model (default: 128)")
    parser.add_argument("--device", default="cpu", help="where the model runs: cpu, cuda, mps (default: cpu)")
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
    answers = _answers(Predictor(options.ckpt_path, options.device), options)
    if options.output is None:
        console = Console()
        for answer in answers:
            console.print(prediction_table(answer))
    else:
        print(f"{write(answers, options.output)} predictions in {options.output}")
    return 0


def _check(options: Namespace) -> None:
    if bool(options.text) == (options.input is not None):
        raise ConfigurationError("Expected either `--text` or `--input`, but got both or none; give one of them.")
    if options.batch_size < 1:
        raise ConfigurationError(f"Expected `--batch_size` to be 1 or more, but got {options.batch_size}.")
    output = options.output
    if output is not None and output.suffix not in (".jsonl", ".parquet"):
        raise ConfigurationError(f"Expected `--output` to end in .jsonl or .parquet, but got {output.name}; rename it.")
    if output is not None and output.exists():
        raise ConfigurationError(
            f"Expected a new file for `--output`, but {output} exists and is not overwritten; choose another."
        )


def _answers(predictor: Predictor, options: Namespace) -> Iterator[Prediction]:
    texts = iter(options.text) if options.input is None else read_texts(options.input, options.text_column)
    while chunk := list(islice(texts, CHUNK)):
        yield from predictor.predict(chunk, options.batch_size)


def read_texts(path: Path, column: str) -> Iterator[str]:
    """The texts of a file, one row at a time.

    Raises:
        ConfigurationError: the file is missing or of another format.
        DataFormatError: the column is missing or a cell is not text; names the file and the line.
    """
    split = from_files({"input": path}).splits["input"]
    number = 0
    for number, row in split.rows():
        if column not in row:
            raise DataFormatError(
                f"Expected a column {column!r} in {split.place(number)}, but got {', '.join(map(repr, row))}; name "
                "it with `--text_column`."
            )
        if not isinstance(row[column], str):
            raise DataFormatError(
                f"Expected text in column {column!r} of {split.place(number)}, but got {row[column]!r}; mend the row."
            )
        yield row[column]
    if number == 0:
        raise DataFormatError(f"Expected texts in {path}, but it has no rows.")
