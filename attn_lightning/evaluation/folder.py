"""What an evaluation leaves behind, part by part, so that a stopped one goes on and two never mix.

<run folder>/evaluation/<checkpoint>-<data>-<split>/
    evaluation.json         what was evaluated: checkpoint, data, seed
    clean.npz               probabilities and labels of the clean pass
    explanations/<name>.npy
    <family>.json           the rows of a family of measurements
    untrained/              the same of an untrained model
    summary.json            all rows, the controls, and what does not beat them
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from attn_lightning.data.buckets import Rows
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.subject import Explained, Ragged
from attn_lightning.files import replacing, write_json
from attn_lightning.locks import Claim, owner, patient_claim

FORMAT = 1
"""Raised whenever the same evaluation would give other numbers; parts of another format are measured again."""


class Parts:
    """The finished parts of one evaluated model.

    Args:
        folder: made if missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # One file per explanation: a stopped evaluation goes on after the last one that was finished.
        (folder / "explanations").mkdir(parents=True, exist_ok=True)

    def clean(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
        """Probabilities (N, C) and labels (N,) of the clean pass; None if it is not done."""
        path = self.folder / "clean.npz"
        if not path.exists():
            return None
        with np.load(path) as stored:
            return stored["probabilities"], stored["labels"]

    def keep_clean(self, probabilities: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> None:
        """Store the clean pass."""
        with replacing(self.folder / "clean.npz") as file:
            np.savez(file, probabilities=probabilities, labels=labels)

    def explanation(self, name: str, lengths: Rows) -> Ragged | None:
        """The stored explanation, mapped into memory; None if it is not done."""
        path = self._explanation(name)
        return Ragged.load(path, lengths) if path.exists() else None

    def keep_explanation(self, name: str, scores: Ragged) -> None:
        """Store an explanation."""
        scores.save(self._explanation(name))

    def _explanation(self, name: str) -> Path:
        return self.folder / "explanations" / f"{name}.npy"

    def family(self, name: str, settings: dict[str, Any]) -> dict[str, Any] | None:
        """What is stored of a family if it was measured with the same options and explanations; None otherwise."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            return None
        stored: dict[str, Any] = json.loads(path.read_text("utf-8"))
        # Other options: measured again, and the file is replaced.
        return stored if stored.get("settings") == settings else None

    def keep_family(self, name: str, settings: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        """Store the rows of a family."""
        write_json(self.folder / f"{name}.json", {"family": name, "settings": settings, "rows": rows})


class EvaluationFolder:
    """One evaluation of one checkpoint on one split, claimed by this process until `release`.

    A folder of the same name that belongs to something else (other data options, another seed, a checkpoint that was
    replaced) is left alone, and the next number is taken.

    Args:
        parent: `<run folder>/evaluation`.
        name: of the evaluation.
        identity: all that makes two evaluations equal; JSON.
        waits: for another process that evaluates into the folder at this moment, whose parts are then read.

    Raises:
        ConfigurationError: another process evaluates into the folder at this moment.
    """

    def __init__(self, parent: Path, name: str, identity: dict[str, Any], waits: bool = False) -> None:
        # As it will be read back: a tuple, which JSON makes a list of, would never equal what is stored.
        identity = json.loads(json.dumps({"format": FORMAT, **identity}))
        number = 0
        while True:
            folder = parent / (name if number == 0 else f"{name}-{number}")
            self._claim = _claim(folder, waits)
            stored = _read(folder / "evaluation.json")
            # Empty: nobody has begun here, or died before the first file.
            if stored in ({}, identity):
                break
            self._claim.release()
            number += 1
        self.path = folder
        self.resumed = bool(stored)
        write_json(folder / "evaluation.json", identity)
        self.model = Parts(folder)
        self.untrained = Parts(folder / "untrained")

    def release(self) -> None:
        """Let others evaluate into the folder."""
        self._claim.release()

    def __enter__(self) -> "EvaluationFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _claim(folder: Path, waits: bool) -> Claim:
    path = folder / ".lock"
    try:
        return patient_claim(path) if waits else Claim(path)
    except BlockingIOError:
        raise ConfigurationError(
            f"Expected to be the only evaluation in {folder}, but {owner(path)} is at work there; wait for it."
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"Expected to be able to write into {folder}, but got: {error}; free the folder or copy the run."
        ) from error


def _read(path: Path) -> dict[str, Any]:
    contents: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return contents


def explained_from(parts: Parts, keys: Mapping[str, str], lengths: Rows) -> Explained:
    """The stored explained.

    Args:
        parts: with a clean pass and the explanations.
        keys: the stored name of every explanation, by the name it is to have.
        lengths: (N,) tokens of every example.
    """
    clean = parts.clean()
    found = {name: parts.explanation(key, lengths) for name, key in keys.items()}
    assert clean is not None
    assert None not in found.values(), "explained before"
    return Explained(clean[0], clean[1], {name: scores for name, scores in found.items() if scores is not None})
