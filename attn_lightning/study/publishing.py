"""The result of a study in a Markdown file that people write too: only what stands between its two marks is replaced.

<!-- study NAME -->
command, version that measured it, number of runs, a table per kind of data
<!-- end -->
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attn_lightning.errors import ConfigurationError, one_line
from attn_lightning.files import write_text
from attn_lightning.study.expansion import Cell
from attn_lightning.study.state import CellState
from attn_lightning.study.table import MetricTable
from attn_lightning.study.writing import OVERVIEW_NOTE, overview_parts

_END = "<!-- end -->"
_COMMIT_LENGTH = 7


def _begin(name: str) -> str:
    return f"<!-- study {name} -->"


def read(path: Path, name: str) -> tuple[str, str]:
    """What a file says before and after the result of a study.

    Args:
        path: the file. One that does not exist yet is treated as empty, and one without the marks of this study as if
            they stood at its end, below a heading of their own.
        name: of the study.

    Returns:
        The text up to the first mark and the text from the second one on, both marks included.

    Raises:
        ConfigurationError: the file cannot be read, its folder does not exist, or the marks are not one pair.
    """
    if not path.parent.is_dir():
        raise ConfigurationError(
            f"Expected `--publish` in a folder that exists, but got {path}; make the folder first."
        )
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"Expected {path} to be a text file, but got: {one_line(error)}; name another one."
        ) from error
    # Marks are comments: what a reader of the file sees is unchanged by them.
    begin = _begin(name)
    if begin not in text:
        # One empty line before a heading, however the file ends.
        separator = "\n" * (2 - text[-2:].count("\n")) if text else ""
        return f"{text}{separator}## {name}\n\n{begin}", f"{_END}\n"
    before, *others = text.split(begin)
    inside, end, after = others[0].partition(_END)
    # A lost mark would let the next call delete what people wrote after it.
    if len(others) > 1 or not end or "<!-- study " in inside:
        raise ConfigurationError(
            f"Expected {path} to have one `{begin}` and after it one `{_END}`, but got another order of marks; mend "
            "them by hand."
        )
    return before + begin, end + after


def block(command: str, results: Sequence[tuple[Cell, CellState]], found: Sequence[MetricTable]) -> str:
    """What a study has measured.

    Args:
        command: how it is run.
        results: every cell and what its run folder says.
        found: its tables.

    Returns:
        Markdown: the command, which version measured how many of its runs, and all metrics side by side.

    Raises:
        ConfigurationError: no cell is complete.
    """
    records = [state.record for _, state in results if state.state == "complete"]
    if not records:
        raise ConfigurationError("Expected finished runs to publish, but there are none; run the study first.")
    # Cells of a study that took days may come from several versions, and a reader of one number has to know.
    versions = Counter(_version(record.get("environment", {})) for record in records)
    several = len(versions) > 1
    measured = " and ".join(
        f"{number} ({commit}{f'; {count} of them' if several else ''})" for (number, commit), count in versions.items()
    )
    # Sorted, so that the text does not change with the order in which cells ended.
    machines = sorted({machine for record in records if (machine := arithmetic_of(record))})
    moved = (
        f" The runs differ in their arithmetic ({'; '.join(machines)}), with which the number of a single seed moves."
        if len(machines) > 1
        else ""
    )
    head = f"`{command}`: {len(records)} of {len(results)} runs, measured with {measured}.{moved} {OVERVIEW_NOTE}"
    run = {table.group for table in found if any(row.complete for row in table.rows)}
    # A table of dashes would only say, cell by cell, what a line says.
    shown = [table for table in found if table.group in run]
    left = list(dict.fromkeys(table.group for table in found if table.group not in run))
    return "\n\n".join([head, *overview_parts(shown), *([f"Not run: {', '.join(left)}."] if left else [])])


def _version(environment: dict[str, Any]) -> tuple[str, str]:
    number, commit = environment.get("packages", {}).get("attn-lightning"), environment.get("commit")
    return number or "an unknown version", f"commit {commit[:_COMMIT_LENGTH]}" if commit else "no commit"


def arithmetic_of(record: Mapping[str, Any]) -> str:
    """`1 thread, AVX512 kernels, x86_64, torch 2.13.0+cpu` of a run record; empty where it does not say.

    Sums are taken in another order with others, and a training can make much of the last digit.
    """
    environment = record.get("environment")
    found = environment.get("arithmetic") if isinstance(environment, Mapping) else None
    if not isinstance(found, Mapping) or "threads" not in found:
        return ""
    threads = f"{found['threads']} thread{'' if found['threads'] == 1 else 's'}"
    return f"{threads}, {found.get('kernels')} kernels, {found.get('machine')}, torch {found.get('torch')}"


def publish(path: Path, name: str, contents: str) -> None:
    """Replace the result of a study in a file; everything outside its marks stays as it is.

    Args:
        path: see `read`.
        name: of the study.
        contents: what `block` gives.
    """
    before, after = read(path, name)
    write_text(path, f"{before}\n{contents}\n{after}")
