"""Files that are whole or not there: everything a run leaves behind is written through this module."""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file in one step: a killed process or a full disk leaves the old one or the new one, never half of it.

    The block writes to a temporary file *beside* the target, because a rename is atomic within one file system only.
    It is flushed to the disk before it takes the name, or a power cut could leave an empty file under that name.

    Args:
        path: the target; its folder must exist.

    Yields:
        The temporary file, open for writing bytes.

    Raises:
        OSError: the file cannot be written; the target is as it was.
    """
    # The number of the process keeps two that write the same file apart.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            # `flush` hands the bytes to the system only; without this a rename may reach the disk before them.
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        # After a success the name is gone already.
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace the file by this text in UTF-8; see `replacing`."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


def write_json(path: Path, contents: Any) -> None:
    """Replace the file by these contents as JSON; see `replacing` and `to_json`."""
    write_text(path, to_json(contents, indent=2) + "\n")


def to_json(contents: Any, indent: int | None = None) -> str:
    """Contents as JSON that every reader takes.

    A number that is not finite becomes null, because JSON has no word for it.

    Args:
        contents: plain values.
        indent: blanks per level; None for one line.
    """
    # Without `allow_nan=False` Python writes NaN, which is no JSON and stops most readers.
    return json.dumps(_finite(contents), indent=indent, allow_nan=False, ensure_ascii=False)


def _finite(contents: Any) -> Any:
    if isinstance(contents, float):
        return contents if math.isfinite(contents) else None
    if isinstance(contents, Mapping):
        return {key: _finite(value) for key, value in contents.items()}
    if isinstance(contents, list | tuple):
        return [_finite(value) for value in contents]
    return contents


def file_name(*parts: str) -> str:
    """The parts as a name of a file without an ending: letters, digits and `.=_-` only, whatever they hold."""
    words = (re.sub(r"[^A-Za-z0-9.=_]+", "-", part).strip("-.") for part in parts)
    return "-".join(word for word in words if word)[:150]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_origin(kind: str, path: Path) -> dict[str, str]:
    """What a record says of a file that results rest on: `kind`, `location`, and its SHA-256 as the `revision`."""
    status = path.stat()
    return {"kind": kind, "location": str(path), "revision": _digest_of((path, status.st_size, status.st_mtime_ns))}


@cache
def _digest_of(state: tuple[Path, int, int]) -> str:
    """Once per process for a file of this size and time: files of vectors have gigabytes, and a study asks often."""
    return file_digest(state[0])
