"""Parts of a split: two in which every class has its share, or some rows from all over it."""

import logging
import math

import numpy as np
from numpy.typing import NDArray

from attn_lightning.data.rows import ArrowDataset
from attn_lightning.errors import DataFormatError

logger = logging.getLogger(__name__)


def cut(
    rows: ArrowDataset,
    fraction: float,
    seed: int,
    advice: str = "change `validation_fraction`",
    learned: bool = True,
) -> tuple[ArrowDataset, ArrowDataset]:
    """Two stratified parts, the second with `fraction` of the rows, as scikit-learn's `train_test_split` makes them.

    The only example of a class is in the first part: a model can learn from it, and data with many classes has some. A
    part of fewer rows than there are classes, which scikit-learn refuses, has its share of each, rounded.

    Args:
        rows: with a column `label`.
        fraction: of the rows in the second part, rounded up.
        seed: of what is drawn.
        advice: what a user can do where it is refused.
        learned: whether a model learns from the first part, which then has to have room for all classes.

    Raises:
        DataFormatError: there are too few rows for so many classes.
    """
    labels = rows.select_columns(["label"]).with_format("numpy")[:]["label"]
    alone = np.bincount(labels)[labels] == 1 if len(labels) else np.zeros(0, np.bool_)
    size = math.ceil(fraction * len(rows))  # as many as of all, rounded as scikit-learn rounds
    # What is only measured may lose a class where the first part has no room for all that stand alone.
    if not learned and alone.sum() >= len(rows) - size:
        alone[:] = False
    several = np.flatnonzero(~alone)
    if alone.any():
        logger.warning("%d classes have a single example, which is in no part that is cut off", alone.sum())
    smaller, num_classes = min(size, len(several) - size), len(np.unique(labels[several]))
    if smaller < 1 or (learned and len(several) - size < num_classes):
        raise DataFormatError(
            f"Expected enough examples of {num_classes + alone.sum()} classes to cut {fraction:.0%} off, but got "
            f"{len(rows)}, {alone.sum()} of them the only one of their class; give splits of your own, or {advice}."
        )
    if smaller < num_classes:
        logger.warning("a part of %d texts cannot have one of each of %d classes", smaller, num_classes)
        first, second = _by_shares(several, labels[several], size, seed)
    else:
        from sklearn.model_selection import train_test_split  # only data without a validation split waits for it

        first, second = train_test_split(
            several, test_size=size, random_state=seed, stratify=labels[several], shuffle=True
        )
    first = np.concatenate([first, np.flatnonzero(alone)])
    # Back in the order of the file: what is read later is read in one direction, and the splits are reproducible.
    return rows.select(np.sort(first)), rows.select(np.sort(second))


def _by_shares(
    rows: NDArray[np.int64], labels: NDArray[np.int64], size: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two parts, the second with `size` rows: of every class its share of them, rounded down or up.

    Up where most of a row is lost otherwise, by lot among equals. scikit-learn does the same, but refuses a part that
    has fewer rows than there are classes.
    """
    generator = np.random.default_rng(seed)
    counts = np.bincount(labels)
    shares = counts * size / len(labels)
    taken = np.floor(shares).astype(np.int64)
    most_lost = np.lexsort((generator.random(len(counts)), taken - shares))
    taken[most_lost[: size - taken.sum()]] += 1
    order = generator.permutation(len(labels))
    place = np.empty(len(labels), np.int64)  # of every row among those of its class
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        place[of_class] = np.arange(len(of_class))
    second = place < taken[labels]
    return rows[~second], rows[second]


def spread(rows: int, limit: int) -> NDArray[np.bool_]:
    """Which rows of a file to take so that every part of it has its share, the same ones each time.

    Args:
        rows: N, of the file.
        limit: n, at most this number of them.

    Returns:
        (N,) one of each of n stretches of equal length; all where there are no more than n.
    """
    if rows <= limit:
        return np.ones(rows, np.bool_)
    # The first of a file that is sorted by class are of one class, and every second of one that alternates too: hence
    # drawn within the stretch, and not the same place of each.
    bounds = np.arange(limit + 1) * rows // limit
    chosen = np.zeros(rows, np.bool_)
    chosen[np.random.default_rng(0).integers(bounds[:-1], bounds[1:])] = True
    return chosen
