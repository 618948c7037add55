"""Prepared data on disk: where it is, whether it is whole, and how it gets there without anyone seeing half of it."""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from attn_lightning.locks import Claim, owner, patient_claim

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
"""In every folder of prepared data; its `files` are the sizes of the others by name."""


def default_cache() -> Path:
    """ATTN_LIGHTNING_CACHE, else `attn_lightning` in the user's cache folder."""
    named = os.environ.get("ATTN_LIGHTNING_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attn_lightning"


def is_whole(folder: Path) -> bool:
    """Whether a cache folder is there with all its files in their full size; a damaged one is reported."""
    if not folder.is_dir():
        return False
    damaged = _damage(folder)
    # A warning and not an error: what is made again costs time, a run that stops costs the night.
    if damaged:
        logger.warning("the prepared data in %s is damaged (%s) and is made again", folder, ", ".join(damaged))
    return not damaged


def _damage(folder: Path) -> list[str]:
    try:
        # Sizes and no digests: this is asked at every start, and what befalls a file is to be cut off or to be gone.
        sizes = json.loads((folder / MANIFEST).read_text("utf-8"))["files"]
        return [name for name, size in sizes.items() if (folder / name).stat().st_size != size]
    except (OSError, ValueError, KeyError) as error:
        return [str(error)]


@contextmanager
def one_at_a_time(place: Path) -> Iterator[None]:
    """Lets one process make what is to lie in a place; the others wait, those of other nodes too.

    Args:
        place: a file or folder in a cache, perhaps not there yet.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    # Beside the place and not in it: a folder is renamed there, and that needs a place where nothing is.
    lock = place.with_name(f".{place.name}.lock")
    try:
        claim = Claim(lock)
    except BlockingIOError:
        logger.info("%s prepares %s; waiting for it", owner(lock), place)
        claim = patient_claim(lock)
    try:
        yield
    finally:
        claim.release(remove=True)


def build_aside(folder: Path, build: Callable[[Path], None]) -> None:
    """Build a folder that is not whole, once: in a temporary one that is renamed, so that nobody ever sees half of it.

    Args:
        folder: to be made; nothing is done if another process makes it meanwhile.
        build: fills an empty folder.
    """
    with one_at_a_time(folder):
        if folder.is_dir() and not _damage(folder):
            return
        prefix = f".build-{folder.name}-"
        for left in folder.parent.glob(f"{prefix}*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=prefix) as temporary:
            built = Path(temporary) / "built"
            built.mkdir()
            build(built)
            # Moved into the temporary folder, which is deleted: a rename needs a target that is not there.
            if folder.is_dir():
                folder.rename(Path(temporary) / "damaged")
            # Atomic within a file system, which is why the temporary folder lies beside its target.
            built.rename(folder)
