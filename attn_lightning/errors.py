"""The errors a user can cause, all caught by the command line and printed as one message.

Every message says what was expected, what came and what to do. Programming errors are not here: they are
`assert` or the built-in exceptions and come with a traceback.
"""

import difflib
from collections.abc import Iterable


class AttnLightningError(Exception):
    """Base of every error that the user can mend; the command line prints it without a traceback."""


class ConfigurationError(AttnLightningError):
    """An option, a combination of options or a checkpoint cannot be used as it was given."""


class DataFormatError(AttnLightningError):
    """A data file, a row of it or an embedding file is not what was declared; names the file and the line."""


class NumericalError(AttnLightningError):
    """A loss or a metric became NaN or infinite; names the step and the term."""


def did_you_mean(unknown: str, known: Iterable[str], most: int = 3) -> str:
    """The part of a message that names what was probably meant.

    Args:
        unknown: what came.
        known: what could have come, in any order.
        most: names at the most.

    Returns:
        ` Did you mean a, b or c?` with the nearest first, or nothing if none is near.
    """
    near = difflib.get_close_matches(unknown, sorted(known), n=most, cutoff=0.5)
    if not near:
        return ""
    *others, last = near
    return f" Did you mean {', '.join(others)}{' or ' if others else ''}{last}?"


def listed(names: Iterable[str], most: int = 10) -> str:
    """Names with a comma between them; of many the first, and how many more there are."""
    found = list(names)
    return ", ".join(found) if len(found) <= most else f"{', '.join(found[:most])} and {len(found) - most:,} more"


def one_line(error: object) -> str:
    """What somebody else's error says, as a part of a message of ours: libraries write several lines, we write one."""
    return " ".join(str(error).split())


def own_cause(error: BaseException) -> AttnLightningError | None:
    """What this package said before others, one around the other, made errors of their own of it; None if nothing."""
    cause = error.__cause__
    while cause is not None and not isinstance(cause, AttnLightningError):
        cause = cause.__cause__
    return cause
