"""How long an evaluation will take, measured on a few of its examples before it begins."""

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from attn_lightning.evaluation.folder import Parts
from attn_lightning.evaluation.out_of_domain import Subset
from attn_lightning.evaluation.progress import Progress
from attn_lightning.evaluation.subject import Examples, ProgressCallback, Subject, no_progress
from attn_lightning.evaluation.suite import Plan, measure, unfinished

_LARGEST = 32
"""Examples of the larger slice."""

FEWEST = 256
"""Examples below which nothing is estimated: slices cost nearly as much as all where steps and not examples cost."""


def estimated_seconds(subject: Subject, plan: Plan, parts: Parts) -> float:
    """Time that is needed for what is missing of an evaluation, roughly: two slices tell it.

    All parts are measured on two slices of different size, spread over the lengths of the texts, and `t = a + b n`
    through both times is taken at the whole split: what a part costs once (`a`) is not multiplied.

    Args:
        subject: model and examples; of its training split a slice of the same share is taken.
        plan: explainers and families.
        parts: what is finished already.

    Returns:
        Seconds on the wall clock; 0 if nothing is missing or there are fewer than `FEWEST` examples.

    Cost: the parts on about a sixteenth of a small split and on at most 48 examples of a large one.
    """
    missing = unfinished(subject, plan, parts)
    count = len(subject.examples)
    if not missing or count < FEWEST:
        return 0.0
    large = min(_LARGEST, max(2, count // 16), count)
    small = max(1, large // 4)
    _times(subject, plan, small)  # what is imported or compiled once is in no slope
    few, many = (_times(subject, plan, size) for size in (small, large))
    total = 0.0
    for name in missing & set(many):
        # At least 0: of two short times the larger slice can have the smaller one.
        slope = max(0.0, many[name] - few.get(name, 0.0)) / max(1, large - small)
        total += many[name] + slope * (count - large)
    return total


def _times(subject: Subject, plan: Plan, size: int) -> dict[str, float]:
    """Seconds of every part on some examples, by its name."""
    share = size / len(subject.examples)
    training = subject.training
    if training is not None:
        training = _slice(training, min(len(training), max(2, round(share * len(training)))))
    slice_ = replace(subject, examples=_slice(subject.examples, size), training=training)
    clock, package = _Clock(), logging.getLogger("attn_lightning")
    level = package.level
    with tempfile.TemporaryDirectory() as folder:
        try:
            package.setLevel(logging.ERROR)  # what there is to say is said once, of the whole
            measure(slice_, plan, Parts(Path(folder)), clock)
        finally:
            package.setLevel(level)
    return clock.seconds


def _slice(examples: Examples, size: int) -> Examples:
    """Examples whose lengths are spread as those of all are."""
    order = np.argsort(np.asarray(examples.lengths), kind="stable")
    # From the middle of equal shares: the shortest and the longest text of a split are rarely typical.
    places = (np.arange(size) + 0.5) * len(order) / size
    return Subset(examples, order[places.astype(np.int64)])


class _Clock(Progress):
    """Shows nothing, and keeps the time of every part."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str, total: int) -> Iterator[ProgressCallback]:
        """See `Progress.part`."""
        start = time.perf_counter()
        yield no_progress
        self.seconds[name.split(", ")[0]] = time.perf_counter() - start
