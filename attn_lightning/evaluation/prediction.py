"""Predictions for raw texts from a checkpoint alone: label, probability and attention per word."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text
from torch import Tensor

from attn_lightning.console import literal, printable
from attn_lightning.data.batching import with_second
from attn_lightning.data.buckets import length_batches
from attn_lightning.data.candidates import candidates_of
from attn_lightning.data.text import UNKNOWN_ID, TextTokenizer
from attn_lightning.errors import ConfigurationError, NumericalError, one_line
from attn_lightning.evaluation.heat_map import heat_map
from attn_lightning.files import replacing, to_json
from attn_lightning.module import AttentionModule
from attn_lightning.types import UNLABELED, Batch, DataSpec

CHUNK = 2048
"""Texts read at a time: long enough to sort by length, short enough that a file of any size fits in memory."""

TOKEN_BUDGET = 2**17
"""The most tokens of a pass, padding included, unless a single text has more: about 1 GB with the default model."""

_SHOWN = 200
"""The most words that the terminal shows of a text."""


@dataclass(frozen=True)
class Prediction:
    """The answer for one text.

    Attributes:
        text: as it came.
        label: name of the most probable class.
        probability: of that class.
        probabilities: by class name.
        words: the text's words as they were read, in order.
        start: character offset of every word in `text`.
        end: the offset after its last character.
        attention: weight of every word, summing to 1.
        unknown: True where the word is not in the training vocabulary.
        truncated: whether words at the end were left out because the model was trained on shorter texts.
        question: the second text, for a model of pairs; else None.
        candidates: names of the classes that the text names, for a model that answers with no other; else None.
    """

    text: str
    label: str
    probability: float
    probabilities: dict[str, float]
    words: list[str]
    start: list[int]
    end: list[int]
    attention: list[float]
    unknown: list[bool]
    truncated: bool
    question: str | None = None
    candidates: list[str] | None = None

    def _repr_html_(self) -> str:
        """What a notebook shows: the label with its probability, and the attention on the words."""
        label = (
            # Escaped: labels are data, and a notebook would run what looks like a script.
            f"<p><b>{escape(self.label)}</b> {self.probability:.3f}{' (text truncated)' if self.truncated else ''}</p>"
        )
        if self.question is not None:
            label += f"<p>{escape(self.question)}</p>"
        return label + heat_map(self.text, self.start, self.end, self.attention)


class Predictor:
    """A trained model with its own tokeniser.

    Args:
        checkpoint: a checkpoint file of this package.
        device: where the model runs.
        trusted: classes outside of this package that the checkpoint may name; None for those that are imported already.

    Raises:
        ConfigurationError: a file that is missing, damaged, from another version, of a model that is not text, or of
            a class that is not trusted.
    """

    def __init__(self, checkpoint: Path, device: str = "cpu", trusted: Collection[str] | None = None) -> None:
        # To the CPU first: a checkpoint of a GPU is read where there is none, and what is wrong with a device is said
        # alone.
        module = AttentionModule.load_from_checkpoint(checkpoint, trusted=trusted, map_location="cpu").eval()
        if module.tokenizer_state is None:
            raise ConfigurationError(f"Expected a checkpoint of a text model, but {checkpoint} has no tokenizer.")
        assert module.spec is not None, "the checkpoint has it"
        self.spec: DataSpec = module.spec
        self.tokenizer = TextTokenizer.from_str(module.tokenizer_state)
        # A model that reads letters can read words that its training never had.
        self.tokenizer.growing = self.tokenizer.options.unknown == "keep"
        try:
            self.module = module.to(device)
        # A torch that was built without CUDA says so with an assertion.
        except (RuntimeError, AssertionError) as error:
            raise ConfigurationError(
                f"Expected to be able to use device {device!r}, but got: {one_line(error)}; use `--device cpu`."
            ) from error

    def predict(
        self,
        texts: Sequence[str] | Sequence[Sequence[str]],
        batch_size: int = 128,
        questions: Sequence[str] | None = None,
    ) -> list[Prediction]:
        """Predict texts, in batches of similar length; the answers come in the order of the texts.

        Args:
            texts: raw texts, which are cut as the training texts were; or texts as lists of words, which stay as they
                are, for a model that was trained on such.
            batch_size: the most texts of a pass; `TOKEN_BUDGET` holds beside it.
            questions: the second text of each, for a model that was trained on pairs.

        Raises:
            ConfigurationError: words for a model that was trained on raw text; second texts for a model of single
                texts, or none for a model of pairs.
            NumericalError: the model predicts NaN.
        """
        words = [text for text in texts if not isinstance(text, str)]
        if words and not self.tokenizer.options.words_given:
            raise ConfigurationError(
                "Expected raw texts, but got texts that are cut into words already: this model was trained on raw text "
                "and cuts it itself; name a column of text with `--text_column`."
            )
        self._check_pairs(texts, questions)
        encoding = self.tokenizer.encode_tokens(words) if words else self.tokenizer.encode_batch(texts)  # type: ignore[arg-type]
        second = None if questions is None else self.tokenizer.encode_batch(questions, whole=True).ids
        possible = None if second is None else candidates_of(encoding.ids, self.tokenizer)
        assert self.module.backbone is not None
        # New words of these texts have ids by now, and the encoder must see how they are written.
        if self.tokenizer.growing:
            self.module.backbone.know(self.tokenizer.vocabulary)
        # With a space between words, which is what their offsets count on.
        texts = [text if isinstance(text, str) else " ".join(text) for text in texts]
        # By row, as batches come in the order of their length.
        answers: dict[int, Prediction] = {}
        beside = None if second is None else [len(ids) for ids in second]
        for rows in length_batches([len(ids) for ids in encoding.ids], batch_size, TOKEN_BUDGET, beside):
            behind = None if second is None else [second[row] for row in rows]
            named = None if possible is None else possible[rows]
            output = self._run([encoding.ids[row] for row in rows], behind, named)
            for position, row in enumerate(rows.tolist()):
                length = len(encoding.ids[row])
                answers[row] = self._answer(
                    texts[row],
                    encoding.offsets[row],
                    encoding.ids[row],
                    output["probabilities"][position],
                    # Neither padding nor a second text, both of which stand behind it.
                    output["attention"][position, :length],
                    truncated=encoding.truncated[row],
                    question=None if questions is None else questions[row],
                    candidates=None if possible is None else possible[row],
                )
        return [answers[row] for row in range(len(texts))]

    def _check_pairs(self, texts: Sequence[Any], questions: Sequence[str] | None) -> None:
        wanted, given = self.spec.has_question, questions is not None
        if wanted != given:
            expected, got = ("a second text with every text", "none") if wanted else ("single texts", "second ones too")
            advice = "give it with `--question` or `--question_column`" if wanted else "leave them out"
            raise ConfigurationError(f"Expected {expected} for this model, but got {got}; {advice}.")
        if questions is not None and len(questions) != len(texts):
            raise ConfigurationError(
                f"Expected as many second texts as texts, but got {len(questions)} and {len(texts)}; give one for each."
            )

    def _run(
        self,
        ids: Sequence[NDArray[np.int32]],
        second: Sequence[NDArray[np.int32]] | None = None,
        candidates: NDArray[np.int64] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        tokens, mask = _padded(ids)
        unlabeled = torch.full((len(ids),), UNLABELED)
        batch = Batch(tokens, mask, labels=unlabeled, rows=torch.arange(len(ids)))
        if second is not None:
            batch = with_second(batch, _padded(second)[0].numpy(), candidates)
        device = self.module.device
        with torch.inference_mode():
            output = self.module(batch.tokens.to(device), batch.mask.to(device))
        # Weights can be finite and so large that what is made of them is not.
        if not torch.isfinite(output.logits).all():
            raise NumericalError("Expected finite logits, but the model gave NaN or infinity; use another checkpoint.")
        return {
            "probabilities": output.logits.softmax(-1).cpu().numpy(),
            "attention": output.attention.cpu().numpy(),
        }

    def _answer(
        self,
        text: str,
        offsets: NDArray[np.int32],
        ids: NDArray[np.int32],
        probabilities: NDArray[np.float32],
        attention: NDArray[np.float32],
        truncated: bool,
        question: str | None,
        candidates: NDArray[np.int64] | None,
    ) -> Prediction:
        names = self.spec.label_names
        best = int(probabilities.argmax())
        return Prediction(
            text=text,
            label=names[best],
            probability=float(probabilities[best]),
            probabilities={name: float(value) for name, value in zip(names, probabilities, strict=True)},
            words=self.tokenizer.words(text, offsets.tolist()),
            start=offsets[:, 0].tolist(),
            end=offsets[:, 1].tolist(),
            attention=attention.tolist(),
            unknown=(ids == UNKNOWN_ID).tolist(),
            truncated=truncated,
            question=question,
            candidates=None if candidates is None else [names[place] for place in np.flatnonzero(candidates)],
        )


def _padded(ids: Sequence[NDArray[np.int32]]) -> tuple[Tensor, Tensor]:
    """(B, T) int64 ids, zeros on the right, and the (B, T) bool mask."""
    lengths = torch.tensor([len(row) for row in ids])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    # Boolean indexing fills row by row, so the flat ids land in their order without a loop.
    tokens = torch.zeros(mask.shape, dtype=torch.int64)
    tokens[mask] = torch.from_numpy(np.concatenate(ids).astype(np.int64))
    return tokens, mask


def write(answers: Iterable[Prediction], path: Path) -> int:
    """Write predictions to a `.jsonl` or `.parquet` file as they come; half a file never takes the final name.

    Returns:
        How many were written.

    Raises:
        ConfigurationError: the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            # Written as they come: the answers of a file that is larger than the memory are never all there at once.
            return _write_jsonl(answers, file) if path.suffix == ".jsonl" else _write_parquet(answers, file)
    except OSError as error:
        raise ConfigurationError(
            f"Expected to be able to write {path}, but got: {error}; choose another `--output`."
        ) from error


def _write_jsonl(answers: Iterable[Prediction], file: IO[bytes]) -> int:
    count = 0
    for answer in answers:
        file.write(to_json(asdict(answer)).encode() + b"\n")
        count += 1
    return count


def _write_parquet(answers: Iterable[Prediction], file: IO[bytes]) -> int:
    count, writer = 0, None
    iterator = iter(answers)
    while chunk := list(islice(iterator, CHUNK)):
        # The label names are data: a map keeps them out of the schema, so every chunk has the same one.
        rows = [{**asdict(answer), "probabilities": list(answer.probabilities.items())} for answer in chunk]
        table = pa.Table.from_pylist(rows, schema=_SCHEMA)
        writer = writer or pq.ParquetWriter(file, _SCHEMA, compression="zstd")
        writer.write_table(table)
        count += len(chunk)
    if writer is not None:
        writer.close()
    return count


_SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("label", pa.string()),
        ("probability", pa.float32()),
        ("probabilities", pa.map_(pa.string(), pa.float32())),
        ("words", pa.list_(pa.string())),
        ("start", pa.list_(pa.int32())),
        ("end", pa.list_(pa.int32())),
        ("attention", pa.list_(pa.float32())),
        ("unknown", pa.list_(pa.bool_())),
        ("truncated", pa.bool_()),
        ("question", pa.string()),
        ("candidates", pa.list_(pa.string())),
    ]
)


def prediction_table(answer: Prediction) -> Table:
    """One prediction as a table: the label, and every word with its attention and a bar.

    Of a text of more than 200 words those with the most attention are shown, in their order.
    """
    title = f"{answer.label}  p = {answer.probability:.4f}" + ("  (text truncated)" if answer.truncated else "")
    # Sorted again, back into the order of the text.
    shown = sorted(np.argsort(answer.attention, kind="stable")[-_SHOWN:].tolist())
    if len(shown) < len(answer.words):
        title += f"  ({len(shown)} of {len(answer.words):,} words shown; `--output` writes all)"
    table = Table(title=literal(title), title_justify="left")
    table.add_column("word")
    table.add_column("attention", justify="right")
    table.add_column("")
    largest = max(answer.attention)
    for place in shown:
        word, weight, unknown = answer.words[place], answer.attention[place], answer.unknown[place]
        bar = "█" * round(20 * weight / largest)
        name = Text(printable(word), style="bold" if weight > 1 / len(answer.words) else "")
        if unknown:
            name.append(" (unknown)", style="dim")
        table.add_row(name, f"{weight:.4f}", Text(bar, style="cyan"))
    return table
