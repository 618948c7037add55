"""Schedules of weights: how the factor of a term changes over the training, as pure functions."""

import math
from typing import Literal

Schedule = Literal["constant", "warmup", "cosine", "cosine_rise"]


def weight_factor(schedule: Schedule, progress: float, fraction: float = 1.0) -> float:
    """Factor of a weight at one point of the training.

    With `u = min(1, progress / fraction)`, the share of the change that is done:

    | schedule | factor | course |
    |---|---|---|
    | `constant` | 1 | |
    | `warmup` | u | a line from 0 to 1 |
    | `cosine` | (1 + cos(pi u)) / 2 | from 1 to 0, flat at both ends |
    | `cosine_rise` | (1 - cos(pi u)) / 2 | from 0 to 1, flat at both ends |

    Args:
        schedule: one of the four.
        progress: share of the training that is done, in [0, 1].
        fraction: share of the training, in (0, 1], over which the factor changes; it stays as it is afterwards.

    Returns:
        A number in [0, 1].
    """
    # `progress` counts optimizer steps, so that accumulation of gradients does not change the course.
    done = min(1.0, progress / fraction)
    if schedule == "warmup":
        return done
    if schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    if schedule == "cosine_rise":
        return (1 - math.cos(math.pi * done)) / 2
    return 1.0
