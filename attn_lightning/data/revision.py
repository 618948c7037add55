"""Which contents of its files a data module stands for, before anything is prepared."""

from collections.abc import Mapping
from typing import Any


def revisions(data: Any) -> dict[str, str]:
    """SHA-256 of the files, commit on the hub, or the generator and its options, of everything that is trained on.

    Args:
        data: a data module of this package; another one has none.

    Returns:
        By the place of the part in the manifest: "" for the data itself, `unlabeled` for a pool of its own.
    """
    found = {}
    if hasattr(data, "found"):
        found[""] = str(data.found.revision)
    elif callable(getattr(data, "source", None)):
        found[""] = str(data.source()["revision"])
    pool = getattr(data, "unlabeled", None)
    if pool is not None and hasattr(pool, "found"):
        found["unlabeled"] = str(pool.found.revision)
    return found


def recorded_revisions(manifest: Mapping[str, Any] | None) -> dict[str, str]:
    """The same, as the manifest of a run has it; nothing for runs without one."""
    found = {}
    for place in ("", "unlabeled"):
        part = (manifest or {}) if not place else (manifest or {}).get(place, {})
        if "revision" in part.get("source", {}):
            found[place] = str(part["source"]["revision"])
    return found


def same_files(manifest: Mapping[str, Any] | None, now: Mapping[str, str]) -> bool:
    """Whether a run saw the files as they are now, as far as both are known."""
    then = recorded_revisions(manifest)
    return all(then[place] == now[place] for place in then.keys() & now.keys())
