"""The page of one's own texts: what models look at in them, in the documents view of the report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attn_lightning import __version__
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.prediction import Prediction
from attn_lightning.files import write_text
from attn_lightning.metrics.intervals import INTERVAL
from attn_lightning.report.blocks import Blocks
from attn_lightning.report.documents import Documents, browser_offsets
from attn_lightning.report.run_content import Corpora, documents_content
from attn_lightning.report.template import render
from attn_lightning.types import UNLABELED

MOST_DOCUMENTS = 20_000
"""Texts on a page at the most, as in a report."""

_DATA = "own texts"


@dataclass(frozen=True)
class AnsweringModel:
    """A model and its answers.

    Attributes:
        label: how the page calls it.
        checkpoint: its file.
        class_names: a name per class.
        answers: one per text, in the same order for every model.
    """

    label: str
    checkpoint: str
    class_names: Sequence[str]
    answers: Sequence[Prediction]


def write_prediction_page(models: Sequence[AnsweringModel], path: Path, notes: Sequence[str] = ()) -> None:
    """Write the page of the answers of one or more models to the same texts.

    Args:
        models: side by side on the page.
        path: of the page; folders are made if need be.
        notes: lines above everything.

    Raises:
        ConfigurationError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, render(prediction_content(models, notes)))
    except OSError as error:
        raise ConfigurationError(
            f"Expected to be able to write {path}, but got: {error}; choose another `--html`."
        ) from error


def prediction_content(models: Sequence[AnsweringModel], notes: Sequence[str] = ()) -> dict[str, Any]:
    """Everything that the page shows, as JSON; the parts of a report that texts alone have not are empty."""
    blocks = Blocks()
    corpora = Corpora(blocks)
    runs = []
    for place, model in enumerate(models):
        # The same run twice, its best and its last checkpoint, stays two models on the page.
        twice = sum(other.label == model.label for other in models) > 1
        content: dict[str, Any] = {
            "label": f"{model.label} {Path(model.checkpoint).name} ({place + 1})" if twice else model.label,
            "data": _DATA,
            "seed": None,
            "status": "complete",
            "classes": list(model.class_names),
            "facts": [("Checkpoint", model.checkpoint)],
            "history": None,
            "documents": documents_content(_DATA, documents_of(model), blocks, corpora),
        }
        runs.append(content)
    # What a model did not read must not look as if it found it unimportant.
    truncated = [
        f"{model.label}: {count:,} texts are longer than those the model was trained on, and end earlier"
        for model in models
        if (count := sum(answer.truncated for answer in model.answers))
    ]
    return {
        "version": __version__,
        "title": ", ".join(model.label for model in models),
        "notes": [*notes, *truncated],
        "runs": runs,
        # Empty and not missing: the script of the page reads every part of a report.
        "groups": [],
        "studies": [],
        "comparison": None,
        "corpora": corpora.content(),
        "metrics": {},
        "files": [],
        "interval": INTERVAL,
        "blocks": blocks.contents,
    }


def documents_of(model: AnsweringModel) -> Documents:
    """The answers of a model as the flat arrays of the documents view; there are no labels."""
    answers = model.answers
    # By name: the numbers of the classes are the checkpoint's own and may differ between two models.
    places = {name: place for place, name in enumerate(model.class_names)}
    lengths = np.array([len(answer.attention) for answer in answers], np.int64)
    flat = {
        name: np.array([value for answer in answers for value in getattr(answer, name)], np.float64)
        for name in ("start", "end", "attention")
    }
    texts = [answer.text for answer in answers]
    starts, ends = browser_offsets(texts, flat["start"].astype(np.int64), flat["end"].astype(np.int64), lengths)
    return Documents(
        rows=np.arange(len(answers)),
        # The view then shows no marks of right and wrong, and offers no filter by label.
        labels=np.full(len(answers), UNLABELED, np.int64),
        predictions=np.array([places[answer.label] for answer in answers], np.int64),
        probabilities=np.array([list(answer.probabilities.values()) for answer in answers], np.float32),
        texts=texts,
        lengths=lengths,
        starts=starts,
        ends=ends,
        explanations={"attention": flat["attention"].astype(np.float32)},
        rationale=None,
        has_rationale=np.zeros(len(answers), np.bool_),
        questions=_questions(answers),
        candidates=_candidates(answers, model.class_names),
    )


def _questions(answers: Sequence[Prediction]) -> list[str] | None:
    """The second texts; None for a model of single texts, which answers none with one."""
    found = [answer.question for answer in answers if answer.question is not None]
    return found or None


def _candidates(answers: Sequence[Prediction], class_names: Sequence[str]) -> NDArray[np.bool_] | None:
    """(N, C) what can be the answer; None for a model that takes any class."""
    found = [[name in answer.candidates for name in class_names] for answer in answers if answer.candidates is not None]
    return np.array(found, np.bool_) if found else None
