"""What the page shows of runs: facts, key numbers, learning curves and documents."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from attn_lightning.errors import DataFormatError, listed
from attn_lightning.report.blocks import Blocks, gaps_and_widths
from attn_lightning.report.documents import Documents, read_documents
from attn_lightning.report.key_numbers import Number, chosen_metrics, key_numbers
from attn_lightning.report.run_data import Run, mapping, numbers
from attn_lightning.study.publishing import arithmetic_of

LONGEST_HISTORY = 100
"""Epochs of a learning curve at the most; of more, first those that were validated, evenly spaced."""

_MODEL_PARTS = ("compressor", "encoder", "scorer", "normalizer")
_UNPLOTTED = ("_std", "_n_valid")


class Corpora:
    """The texts of all runs, each data set once: a run names its examples by their number in it.

    Args:
        blocks: where texts are kept.
    """

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._numbers: dict[str, dict[tuple[str, str | None, int], int]] = {}

    def numbers(self, name: str, texts: Sequence[str], questions: Sequence[str] | None = None) -> list[int]:
        """The number of every text with its question; equal ones in one run are told apart by what came before."""
        known = self._numbers.setdefault(name, {})
        seen: Counter[tuple[str, str | None]] = Counter()
        found = []
        second: Sequence[str | None] = questions or [None] * len(texts)
        # A text that comes twice in a split is two documents, in every run alike.
        for pair in zip(texts, second, strict=True):
            seen[pair] += 1
            found.append(known.setdefault((*pair, seen[pair]), len(known)))
        return found

    def place(self, name: str) -> int:
        """The number of a data set."""
        return list(self._numbers).index(name)

    def content(self) -> list[dict[str, Any]]:
        """All data sets with their texts."""
        return [
            {
                "name": name,
                "texts": self._blocks.json([text for text, _, _ in known]),
                "questions": self._blocks.json([question for _, question, _ in known])
                if any(question is not None for _, question, _ in known)
                else None,
            }
            for name, known in self._numbers.items()
        ]


def run_content(run: Run, blocks: Blocks, corpora: Corpora, most: int) -> tuple[dict[str, Any], list[str]]:
    """What the page shows of one run.

    Args:
        run: the run.
        blocks: where its arrays are kept.
        corpora: where its texts are kept.
        most: documents at the most; 0 leaves them out.

    Returns:
        The content, and a line for everything that could not be read.
    """
    # A list of its own: the notes of the run belong to whoever read it.
    notes = list(run.notes)
    documents = None
    if most:
        try:
            found = read_documents(run, most)
            documents = documents_content(run.data_name, found, blocks, corpora)
            if found.left_out:
                notes.append(f"{run.label}: {most} of {most + found.left_out} documents, a random choice")
        except DataFormatError as error:
            notes.append(f"{run.label} is shown without documents: {error}")
    return {
        "label": run.label,
        "data": run.data_name,
        "seed": run.seed,
        "status": run.status,
        "classes": run.class_names,
        "facts": facts(run),
        "history": history(run, blocks),
        "documents": documents,
    }, notes


def facts(run: Run) -> list[tuple[str, str]]:
    """What was run, on what, and how long it took."""
    splits = mapping(run.data.get("splits"))
    sizes = [
        f"{name} {rows:,}" for name, split in splits.items() if isinstance(rows := mapping(split).get("rows"), int)
    ]
    cost, environment = run.values("cost"), mapping(run.record.get("environment"))
    found: list[tuple[str, Any]] = [
        ("Method", run.method),
        ("Data", run.data_name),
        ("Documents", ", ".join(sizes)),
        ("Classes", listed(run.class_names)),
        ("Model", _model(run)),
        ("Parameters", _count(run.record.get("num_parameters"))),
        ("Seed", run.seed),
        ("Epochs", len(run.history) or None),
        ("Time of fitting", _seconds(cost.get("fit_seconds"))),
        ("Peak memory", f"{cost['peak_memory_mib']:,.0f} MiB" if "peak_memory_mib" in cost else None),
        ("Status", run.status),
        ("Error", run.record.get("error")),
        ("Commit", environment.get("commit")),
        ("Arithmetic", arithmetic_of(run.record)),
        ("Folder", run.folder),
    ]
    # What a record does not say has no line; `0` and `False` are said.
    return [(name, str(value)) for name, value in found if value not in (None, "")]


def _model(run: Run) -> str:
    backbone = mapping(mapping(run.config.get("model")).get("backbone"))
    options = mapping(backbone.get("init_args"))
    # A focus network stands in the place of encoder and scorer, whose options are there all the same.
    parts = ("focus", "normalizer", "classifier") if options.get("focus") else _MODEL_PARTS
    shown = [f"{part} {_class_name(options[part])}" for part in parts if options.get(part)]
    return f"{_class_name(backbone)}: {', '.join(shown)}" if shown else ""


def _class_name(value: Any) -> str:
    return str(mapping(value).get("class_path") or value).rpartition(".")[2]


def _count(value: Any) -> str | None:
    return f"{value:,}" if isinstance(value, int) else None


def _seconds(value: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:.1f} s" if value < 90 else f"{value / 60:.1f} min" if value < 5400 else f"{value / 3600:.1f} h"


def history(run: Run, blocks: Blocks) -> dict[str, str] | None:
    """Learning curves as a block: epochs, what chose the best one, and a series per metric with null where an epoch has
    none."""
    rows = _thinned(run.history)
    found = [numbers(row) for row in rows]
    names = dict.fromkeys(name for row in found for name in row if name != "epoch" and not name.endswith(_UNPLOTTED))
    if not names:
        return None
    # Lightning counts from 0; people, and the lines of a run, from 1.
    epochs = [row.get("epoch", float(place)) + 1 for place, row in enumerate(found)]
    series = {name: [_rounded(row.get(name)) for row in found] for name in names}
    return blocks.json({"epochs": epochs, "monitor": run.monitor, "series": series})


def _thinned(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows of so many epochs as a page has room for."""
    # Thousands of epochs are no more to the eye than some hundreds, but would be most of the page.
    if len(rows) <= LONGEST_HISTORY:
        return list(rows)
    groups: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(sum(name.startswith("val/") for name in row), []).append(place)
    # The last epoch is always there, because that is where curves are compared.
    kept = {len(rows) - 1}
    # What few epochs measured comes first: a curve of every tenth epoch has its points among those alone.
    for _, places in sorted(groups.items(), reverse=True):
        if room := LONGEST_HISTORY - len(kept):
            kept.update(places[::-1][:: math.ceil(len(places) / room)])
    return [rows[place] for place in sorted(kept)]


def _rounded(value: float | None) -> float | None:
    # Five digits are more than a curve can show, and a third of the size in JSON.
    return None if value is None else float(f"{value:.5g}")


def documents_content(name: str, found: Documents, blocks: Blocks, corpora: Corpora) -> dict[str, Any]:
    """The documents of a run on the data `name` as blocks."""
    # Other data under the same name has its own texts; a run finds those of another by equal text.
    gaps, widths = gaps_and_widths(found.starts, found.ends, found.lengths)
    ids = corpora.numbers(name, found.texts, found.questions)
    content: dict[str, Any] = {
        "corpus": corpora.place(name),
        "segments": found.segments,
        "rows": blocks.integers(found.rows),
        "texts": blocks.integers(np.array(ids, np.int64)),
        "labels": blocks.integers(found.labels),
        "predictions": blocks.integers(found.predictions),
        "classes": found.probabilities.shape[1],
        # 16 bits are five digits, more than a page shows, at half the size of a float.
        "probabilities": blocks.integers((found.probabilities * 65535).round().clip(0, 65535)),
        "lengths": blocks.integers(found.lengths),
        "gaps": blocks.integers(gaps),
        "widths": blocks.integers(widths),
        "explanations": {
            explainer: blocks.weights(values, found.lengths) for explainer, values in found.explanations.items()
        },
        "rationale": None,
        "candidates": None if found.candidates is None else blocks.integers(found.candidates.astype("u1")),
    }
    if found.rationale is not None and found.has_rationale.any():
        # Marks and who has any apart: an example without rationale differs from one whose rationale is empty.
        content["rationale"] = {
            "marks": blocks.integers(found.rationale.astype("u1")),
            "known": blocks.integers(found.has_rationale.astype("u1")),
        }
    return content


def groups_content(groups: Mapping[str, Sequence[tuple[int, Run]]]) -> list[dict[str, Any]]:
    """The key numbers of every group of runs that differ in nothing but the seed.

    Args:
        groups: by label the runs with their number on the page.
    """
    metrics = chosen_metrics(run for runs in groups.values() for _, run in runs)
    return [
        {
            "label": label,
            "data": runs[0][1].data_name,
            "runs": [place for place, _ in runs],
            "numbers": [number_content(number) for number in key_numbers([run for _, run in runs], metrics)],
        }
        for label, runs in groups.items()
    ]


def number_content(number: Number) -> dict[str, Any]:
    """A key number as JSON, undefined parts as null."""
    return {
        "metric": number.metric,
        "value": number.value,
        "low": finite(number.low),
        "high": finite(number.high),
        "over": number.over,
        "controls": dict(number.controls),
        "published": None if number.published is None else vars(number.published),
    }


def finite(value: float) -> float | None:
    """The number as JSON can say it: null where it is not finite."""
    return value if math.isfinite(value) else None
