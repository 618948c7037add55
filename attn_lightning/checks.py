"""Ranges and choices of options, checked in one place so that every refusal reads the same."""

import math
from collections.abc import Iterable

from attn_lightning.errors import ConfigurationError, did_you_mean


def check_numbers(
    owner: object = None,
    /,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    advice: str = "",
    **values: float | None,
) -> None:
    """Refuse options that are outside a range or not finite.

    Args:
        owner: the object (or the name of one) whose options they are; None where the names say enough.
        above: smallest value, excluded.
        at_least: smallest value, included.
        below: largest value, excluded.
        at_most: largest value, included.
        advice: what to do instead, without a full stop at its end.
        **values: the options by name; None is an option that was not given, which passes.

    Raises:
        ConfigurationError: for the first option that is out of range; says whose it is, the range, the value and the
            advice.
    """
    for name, value in values.items():
        # None is how an option says that it was not given; whether it may be missing is another question.
        if value is None:
            continue
        inside = (
            # NaN is below and above nothing, so that every comparison alone would let it pass or fail by its form.
            _is_finite(value)
            and (above is None or value > above)
            and (at_least is None or value >= at_least)
            and (below is None or value < below)
            and (at_most is None or value <= at_most)
        )
        if not inside:
            expected = _range(above, at_least, below, at_most)
            raise _refusal(name, owner, f"{expected}, but got {_shown(value)}", advice)


def check_choice(owner: object = None, /, *, choices: Iterable[str], advice: str = "", **values: str) -> None:
    """Refuse options that are not one of the choices.

    Args:
        owner: see `check_numbers`.
        choices: all values that are allowed.
        advice: see `check_numbers`.
        **values: the options by name.

    Raises:
        ConfigurationError: for the first that is none of them, with the nearest.
    """
    choices = list(choices)
    for name, value in values.items():
        if value not in choices:
            hint = did_you_mean(str(value), choices, most=1)
            raise _refusal(name, owner, f"one of {', '.join(choices)}, but got {value!r}", advice, hint)


def _is_finite(value: float) -> bool:
    """Whether it is a number that arithmetic can take; whole numbers of Python may be longer than that."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _shown(value: float) -> str:
    """The number as text; one that is too long for a message only by its length, as Python refuses to write it."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"a number of {value.bit_length():,} bits"
    return f"{value}"


def _range(above: float | None, at_least: float | None, below: float | None, at_most: float | None) -> str:
    """The range in words: `above 0 and at most 1`."""
    parts = [
        f"{words} {bound:g}"
        for words, bound in (("above", above), ("at least", at_least), ("below", below), ("at most", at_most))
        if bound is not None
    ]
    return f"a finite number {' and '.join(parts)}".strip()


def _refusal(name: str, owner: object, got: str, advice: str, hint: str = "") -> ConfigurationError:
    whose = owner if isinstance(owner, str) else "" if owner is None else type(owner).__name__
    of = f" of {whose}" if whose else ""
    return ConfigurationError(f"Expected `{name}`{of} to be {got}{f'; {advice}' if advice else ''}.{hint}")
