"""Which contents of its files a data module stands for, before anything is prepared."""

import contextlib
from collections.abc import Mapping
from typing import Any

from attn_lightning.errors import ConfigurationError

PARTS = ("unlabeled", "embeddings")
"""What of a manifest has a source of its own beside that of the data: a pool, and a file of word vectors."""


def revisions(data: Any) -> dict[str, str]:
    """SHA-256 of the files, commit on the hub, or the generator and its options, of everything that is trained on.

    Args:
        data: a data module of this package; another one has none.

    Returns:
        By the place of the part in the manifest: "" for the data itself, and those of `PARTS` that it has.
    """
    found = {}
    if hasattr(data, "found"):
        found[""] = str(data.found.revision)
    elif callable(getattr(data, "source", None)):
        found[""] = str(data.source()["revision"])
    pool = getattr(data, "unlabeled", None)
    if pool is not None and hasattr(pool, "found"):
        found["unlabeled"] = str(pool.found.revision)
    if (vectors := getattr(data, "embeddings", None)) is not None:
        # Without its vectors a run cannot begin, but a table of earlier ones can still compare their texts.
        with contextlib.suppress(ConfigurationError):
            if (origin := vectors.origin()) is not None:
                found["embeddings"] = origin["revision"]
    return found


def recorded_revisions(manifest: Mapping[str, Any] | None) -> dict[str, str]:
    """The same, as the manifest of a run has it; nothing for runs without one."""
    return {place: str(source["revision"]) for place, source in _sources(manifest).items()}


def located_revisions(manifest: Mapping[str, Any] | None) -> dict[str, str]:
    """The same with the location in the place of a part, to compare runs of which some have another pool or vectors."""
    found = _sources(manifest).items()
    return {place and f"{place} {source.get('location')}": str(source["revision"]) for place, source in found}


def same_files(manifest: Mapping[str, Any] | None, now: Mapping[str, str]) -> bool:
    """Whether a run saw the files as they are now, as far as both are known."""
    return agree(recorded_revisions(manifest), now)


def agree(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two sets of revisions are equal in what both have."""
    return all(one[place] == other[place] for place in one.keys() & other.keys())


def _sources(manifest: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    every = {"": manifest or {}, **{place: (manifest or {}).get(place, {}) for place in PARTS}}
    return {place: part["source"] for place, part in every.items() if "revision" in part.get("source", {})}
