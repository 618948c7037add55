"""Which contents of its files a run stands for, before anything is prepared."""

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from attn_lightning.backbone.published import ENCODER
from attn_lightning.data.cache import MANIFEST
from attn_lightning.errors import ConfigurationError

PARTS = ("unlabeled", "embeddings")
"""What of a manifest has a source of its own beside that of the data: a pool, and a file of word vectors."""

_MODELS = "models"
"""What a record has beside its manifest: trained models that a method begins from, and a pretrained encoder."""


@dataclass(frozen=True)
class Version:
    """Which version of a part of the data a run saw, or would see now.

    Attributes:
        revision: SHA-256 of the files, commit on the hub, or that of a generator and its options.
        kind: of the source of texts or segments, such as `folder` or `hub`; "" for a pool and for word vectors, of
            whose contents nothing but the revision is known.
        splits: name, and SHA-256 of the labels and texts, of every split as it was prepared; empty where that is not
            known.
    """

    revision: str
    kind: str = ""
    splits: tuple[tuple[str, str], ...] = ()

    def agrees(self, other: "Version") -> bool:
        """Whether the two may be the same data: nothing that is known of both differs."""
        # Of one kind the revisions decide: files may differ in marks of words, which no digest of texts sees.
        if self.kind == other.kind:
            return self.revision == other.revision
        # A digest of files and a commit of the hub differ for equal texts too; what was made of them does not.
        return not (self.splits and other.splits) or self.splits == other.splits


def revisions(data: Any) -> dict[str, Version]:
    """The versions of everything that is trained on.

    Args:
        data: a data module of this package; another one has none.

    Returns:
        By the place of the part in the manifest: "" for the data itself, and those of `PARTS` that it has.
    """
    found = {}
    if hasattr(data, "found"):
        found[""] = Version(str(data.found.revision), data.found.kind, _prepared(data))
    elif callable(getattr(data, "source", None)):
        source = data.source()
        found[""] = Version(str(source["revision"]), source["kind"])
    pool = getattr(data, "unlabeled", None)
    if pool is not None and hasattr(pool, "found"):
        found["unlabeled"] = Version(str(pool.found.revision))
    if (vectors := getattr(data, "embeddings", None)) is not None:
        # Without its vectors a run cannot begin, but a table of earlier ones can still compare their texts.
        with contextlib.suppress(ConfigurationError):
            if (origin := vectors.origin()) is not None:
                found["embeddings"] = Version(origin["revision"])
    return found


def recorded_revisions(record: Mapping[str, Any]) -> dict[str, Version]:
    """The same, as the record of a run has it, with the models that it began from; nothing for runs without one."""
    return {place: version for place, (_, version) in _recorded(record).items()}


def located_revisions(record: Mapping[str, Any]) -> dict[str, Version]:
    """The same with the location in the place of a part, to compare runs of which some have another pool or vectors.

    A part without a location, as the models of an archive have none, is left out.
    """
    found = [(place, *known) for place, known in _recorded(record).items()]
    return {place and f"{place} {location}": version for place, location, version in found if location or not place}


def same_files(record: Mapping[str, Any], now: Mapping[str, Version]) -> bool:
    """Whether a run saw the data and the models as they are now, as far as both are known."""
    return agree(recorded_revisions(record), now)


def model_place(option: str) -> str:
    """The place in revisions of the model that an option of a method names."""
    return f"{_MODELS}.{option}"


def model_option(place: str) -> str | None:
    """The option of such a place; None for that of a part of the data."""
    return place.removeprefix(f"{_MODELS}.") if place.startswith(f"{_MODELS}.") else None


def option_name(option: str) -> str:
    """How the option of a model is written on the command line."""
    return "model.backbone.encoder.name" if option == ENCODER else f"method.{option}"


def without_models(found: Mapping[str, Version], options: Iterable[str]) -> dict[str, Version]:
    """All versions but those of the models that these options of methods name."""
    left_out = {model_place(option) for option in options}
    return {place: version for place, version in found.items() if place not in left_out}


def changed_models(record: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Options of methods whose models two records know with different contents."""
    one, other = (dict(found.get(_MODELS) or {}) for found in (record, now))
    return [option for option in one if option in other and one[option]["revision"] != other[option]["revision"]]


def agree(one: Mapping[str, Version], other: Mapping[str, Version]) -> bool:
    """Whether two sets of versions agree in what both have."""
    return all(one[place].agrees(other[place]) for place in one.keys() & other.keys())


def _recorded(record: Mapping[str, Any]) -> dict[str, tuple[str, Version]]:
    """Location and version of every part with a revision."""
    manifest = record.get("data") or {}
    every = {"": manifest, **{place: manifest.get(place, {}) for place in PARTS}}
    found = {}
    for place, part in every.items():
        source = part.get("source", {})
        if "revision" in source:
            of_texts = ("", ()) if place else (str(source.get("kind", "")), _digests(part))
            found[place] = (str(source.get("location")), Version(str(source["revision"]), *of_texts))
    models = (record.get(_MODELS) or {}).items()
    return found | {
        model_place(option): (str(model.get("location", "")), Version(model["revision"])) for option, model in models
    }


def _prepared(data: Any) -> tuple[tuple[str, str], ...]:
    """Digests of the splits of texts, where an earlier run has prepared them; nothing is prepared for a comparison."""
    # Images of a file are no splits yet, and have no `digest`.
    if not hasattr(data, "digest"):
        return ()
    with contextlib.suppress(OSError, ValueError):
        return _digests(json.loads((data.cache / data.digest / MANIFEST).read_text("utf-8")))
    return ()


def _digests(manifest: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    splits = manifest.get("splits", {})
    return tuple(sorted((name, split["sha256"]) for name, split in splits.items() if "sha256" in split))
