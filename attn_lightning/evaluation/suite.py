"""Runs explainers and families of measurements over a model, part by part, and keeps every finished part."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from attn_lightning.errors import NumericalError
from attn_lightning.evaluation.explainer import Explainer
from attn_lightning.evaluation.explainers.gradients import NATIVE, native_explanations
from attn_lightning.evaluation.family import Family, Row
from attn_lightning.evaluation.folder import Parts, explained_from
from attn_lightning.evaluation.progress import Progress
from attn_lightning.evaluation.subject import Subject

_CLEAN = "predictions"
"""Name of the part that makes the clean pass and what comes with it."""


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        families: in the order of their tables.
        explainers: the explanations that they judge, by name; attention, first, is always among them.
    """

    families: Sequence[Family]
    explainers: Mapping[str, Explainer]


@dataclass
class Findings:
    """What was found out about one model.

    Attributes:
        rows: by the name of the family.
        skipped: explainers and families that cannot be had on this data or model, with the reason.
    """

    rows: dict[str, list[Row]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def measure(subject: Subject, plan: Plan, parts: Parts, progress: Progress) -> Findings:
    """Measure a model; what an earlier call finished with the same options is read, not measured again.

    Args:
        subject: model and examples.
        plan: explainers and families.
        parts: where finished parts are kept.
        progress: shows what is going on.

    Returns:
        All rows, and what could not be had.

    Raises:
        NumericalError: the model predicts NaN.
    """
    findings = Findings()
    # Before anything is computed: what is missing is told at the start and not after an hour.
    explainers = _available(subject, plan.explainers, findings)
    families = [family for family in plan.families if not _skip(family.name, family.unavailable(subject), findings)]
    _explain(subject, explainers, parts, progress)
    keys = {name: _key(explainer) for name, explainer in explainers.items()}
    explained = explained_from(parts, keys, np.asarray(subject.examples.lengths))
    for family in families:
        # Another option of an explainer gives other rows, so it is a part of what a stored family is known by.
        settings = {"options": options_of(family), "explainers": options_of_all(explainers)}
        stored = parts.family(family.name, settings)
        if stored is None:
            with progress.part(family.name, len(subject.examples)) as advance, _repeatable(subject):
                rows = family.run(subject, explained, advance)
            parts.keep_family(family.name, settings, [row_to_json(row) for row in rows])
            # As it was written, so that a first evaluation and one that reads it say the same.
            stored = {"rows": [row_to_json(row) for row in rows]}
        else:
            progress.kept(family.name)
        findings.rows[family.name] = [Row(**row) for row in stored["rows"]]
    return findings


def unfinished(subject: Subject, plan: Plan, parts: Parts) -> set[str]:
    """Names of the parts that `measure` would have to measure, as it tells them to `progress` (the first word)."""
    lengths, missing = np.asarray(subject.examples.lengths), set()
    explainers = _available(subject, plan.explainers, Findings())
    for name, explainer in explainers.items():
        if parts.explanation(_key(explainer), lengths) is None:
            missing.add(_CLEAN if name in NATIVE else name)
    if parts.clean() is None:
        missing.add(_CLEAN)
    for family in plan.families:
        settings = {"options": options_of(family), "explainers": options_of_all(explainers)}
        if family.unavailable(subject) is None and parts.family(family.name, settings) is None:
            missing.add(family.name)
    return missing


def _available(subject: Subject, explainers: Mapping[str, Explainer], findings: Findings) -> dict[str, Explainer]:
    return {
        name: explainer
        for name, explainer in explainers.items()
        if not _skip(f"explainer {name}", explainer.unavailable(subject), findings)
    }


def _skip(name: str, reason: str | None, findings: Findings) -> bool:
    if reason is not None:
        findings.skipped[name] = reason
    return reason is not None


def _explain(subject: Subject, explainers: Mapping[str, Explainer], parts: Parts, progress: Progress) -> None:
    """One shared pass for the prediction and all that comes with it, then the others one by one."""
    lengths = np.asarray(subject.examples.lengths)
    missing = [name for name in explainers if parts.explanation(_key(explainers[name]), lengths) is None]
    # These come with the clean pass; each by itself would run the encoder again.
    native = [name for name in missing if name in NATIVE]
    if parts.clean() is None or native:
        with progress.part(f"{_CLEAN}, " + ", ".join(native or ["attention"]), len(lengths)) as advance:
            probabilities, labels, found = native_explanations(subject, native, advance)
        # Before anything is kept: a second start would take the NaN for finished.
        check_finite(probabilities)
        for name, scores in found.items():
            parts.keep_explanation(_key(explainers[name]), scores)
        parts.keep_clean(probabilities, labels)
    for name in missing:
        if name not in NATIVE:
            with progress.part(name, len(lengths)) as advance, _repeatable(subject):
                scores = explainers[name].explain(subject, advance)
            parts.keep_explanation(_key(explainers[name]), scores)


def _key(explainer: Explainer) -> str:
    """Name of an explainer's file: with other options it is another one."""
    options = options_of(explainer)
    digest = hashlib.sha256(json.dumps(options).encode()).hexdigest()[:8]
    return f"{explainer.name}-{digest}" if options else explainer.name


def check_finite(probabilities: np.ndarray[Any, Any]) -> None:
    """Refuse to evaluate a model that predicts nothing.

    Raises:
        NumericalError: a probability is NaN or infinite, with the first rows.
    """
    bad = np.flatnonzero(~np.isfinite(probabilities).all(1))
    if len(bad):
        rows = ", ".join(map(str, bad[:5]))
        raise NumericalError(
            f"Expected finite probabilities, but got NaN for {len(bad)} of {len(probabilities)} examples (rows {rows}"
            f"{', ...' if len(bad) > 5 else ''}); the weights are damaged or the data is not what the model was "
            "trained on."
        )


@contextmanager
def _repeatable(subject: Subject) -> Iterator[None]:
    """Whatever a part draws from torch's own generator is the same in every order of parts, and leaves no trace."""
    # Forked: a training that goes on after a probe must draw what it would have drawn without it.
    with torch.random.fork_rng(devices=[subject.device] if subject.device.type == "cuda" else []):
        torch.manual_seed(subject.seed)
        yield


def options_of(thing: object) -> dict[str, Any]:
    """The options of a family or an explainer that are plain values, as JSON; tuples become lists."""
    found = {}
    # Sorted, as the digest in a file's name must not depend on the order of assignments.
    for name, value in sorted(vars(thing).items()):
        # Private is what is made of the options, such as models, which no JSON could hold.
        if name.startswith("_"):
            continue
        if isinstance(value, Mapping):
            found[name] = {str(key): _plain(entry) for key, entry in value.items()}
        else:
            found[name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value if isinstance(value, str | int | float | bool | None) else type(value).__name__


def options_of_all(explainers: Mapping[str, Explainer]) -> dict[str, Any]:
    """The options of every explainer by its name."""
    return {name: options_of(explainer) for name, explainer in explainers.items()}


def row_to_json(row: Row) -> dict[str, Any]:
    """The row as JSON; a number that is not finite becomes None."""
    values = asdict(row)
    for name in ("value", "std"):
        if values[name] is not None and not math.isfinite(values[name]):
            values[name] = None
    return {**values, "setting": dict(row.setting)}
