"""One line for all that failed alike: a mistake in what cells share would otherwise be printed once for each."""

from collections.abc import Iterable, Mapping


def by_error(errors: Mapping[str, str]) -> list[tuple[list[str], str]]:
    """Names with the same error together, in the order of the first of each.

    Args:
        errors: message by name.
    """
    found: dict[str, list[str]] = {}
    for name, error in errors.items():
        found.setdefault(error, []).append(name)
    return [(names, error) for error, names in found.items()]


def first_and_number(names: Iterable[str]) -> str:
    """`vanilla_sst/seed_0 and 479 more`, or the only name."""
    first, *others = names
    return f"{first} and {len(others)} more" if others else first


def error_lines(errors: Mapping[str, str]) -> str:
    """An indented line per error, for the end of a message."""
    return "\n".join(f"  {first_and_number(names)}: {error}" for names, error in by_error(errors))
