"""The file of a checkpoint: written whole or not at all, and refused when a single bit of it has changed.

A file of `torch.save` is a ZIP archive, and such an archive may end in a comment. Ours holds the SHA-256 of all that
stands before it, so that one file carries its own checksum and every other reader still opens it.
"""

import hashlib
import os
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from attn_lightning.checkpoint.contents import KEY
from attn_lightning.errors import ConfigurationError
from attn_lightning.files import file_digest, replacing

SEALED = "sealed"
"""In our entry of a checkpoint whose file ends in a checksum: one that lost its checksum is damaged, not old."""

_TAG = b"attn_lightning sha256 "
_DIGEST_LENGTH = 64
_CHUNK = 2**20


def write_checkpoint(contents: dict[str, Any], path: Path) -> None:
    """Write a checkpoint with its checksum in one step; a full disk or a kill leaves the previous file as it was.

    Args:
        contents: plain values and tensors.
        path: the target; its folder must exist.

    Raises:
        OSError: the file cannot be written.
    """
    stored = contents.get(KEY)
    # The mark says that a checksum belongs at the end: a file that has lost its end is found out.
    if isinstance(stored, dict):
        contents = {**contents, KEY: {**stored, SEALED: True}}
    try:
        with replacing(path) as file:
            # The checksum is of the file as it is on the disk, so it comes after everything else.
            torch.save(contents, file)
            _seal(file)
    except (OSError, RuntimeError) as error:
        cause = _os_error(error)
        if cause is None:
            raise
        raise OSError(cause.errno, cause.strerror, str(path)) from error


def _os_error(error: BaseException | None) -> OSError | None:
    """What the disk said: the writer of torch reports it as an error of its own, which names no cause."""
    # torch turns a full disk into a RuntimeError of its own and keeps the cause below it.
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def _seal(file: IO[bytes]) -> None:
    # The last two bytes of an archive without a comment are the length of the comment, 0.
    file.seek(-2, os.SEEK_END)
    file.write(struct.pack("<H", len(_TAG) + _DIGEST_LENGTH) + _TAG)
    file.flush()
    file.write(file_digest(Path(file.name)).encode())


def read_checkpoint(path: Path, mmap: bool = True) -> dict[str, Any]:
    """Load a checkpoint file on the CPU; only plain values and tensors are unpickled.

    Args:
        path: the file.
        mmap: leave the weights in the file until they are used, for those who look at the other contents only.

    Raises:
        ConfigurationError: the file is missing, damaged, or holds code.
    """
    if not path.is_file():
        raise ConfigurationError(
            f"Expected `--ckpt_path` to be a checkpoint file, but {path} does not exist; give a file such as "
            "RUN/checkpoints/best.ckpt."
        )
    sealed = _check_seal(path)
    try:
        if not (sealed or zipfile.is_zipfile(path)):
            raise ConfigurationError(
                f"Expected {path} to be a checkpoint, but it is cut off or of another program; use another one."
            )
        # Without a checksum only reading all of it shows whether it can be read.
        contents = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and sealed)
    except ConfigurationError:
        raise
    except Exception as error:  # damaged archives and pickles raise whatever their bytes happen to ask for
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigurationError(
            f"Expected {path} to be a readable checkpoint, but got: {said}; the file is damaged or of another program, "
            "use another one."
        ) from error
    if not isinstance(contents, dict):
        raise ConfigurationError(f"Expected {path} to be a checkpoint of attn_lightning, but got other data in it.")
    stored = contents.get(KEY)
    if not sealed and isinstance(stored, dict) and stored.get(SEALED):
        raise _damaged(path)
    return contents


def _check_seal(path: Path) -> bool:
    """Whether the file ends in a checksum; older ones do not.

    Raises:
        ConfigurationError: it does, of other contents.
    """
    rest = path.stat().st_size - _DIGEST_LENGTH
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(max(0, rest - len(_TAG)))
        if file.read(len(_TAG)) != _TAG:
            return False
        stored = file.read()
        file.seek(0)
        while rest > 0:
            # In pieces: a checkpoint may be larger than the memory that is left.
            chunk = file.read(min(_CHUNK, rest))
            digest.update(chunk)
            rest -= len(chunk)
    if digest.hexdigest().encode() != stored:
        raise _damaged(path)
    return True


def _damaged(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"Expected {path} to be as it was written, but its checksum differs; the file was damaged or edited, use "
        "another one."
    )
