"""Studies by name: a file of `experiments/studies`, or an entry of its `variants.yaml` that differs from another."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attn_lightning.errors import ConfigurationError, did_you_mean
from attn_lightning.experiments import FOLDER, named_file
from attn_lightning.study.configuration import Study, read_study, study_contents_of, study_of

STUDIES = FOLDER / "studies"
"""Where a study is looked for that is given by its name alone."""

_VARIANTS = "variants"


def named_study(name: str, folder: Path = STUDIES) -> Study:
    """The study of a name or of a path.

    Args:
        name: a path, the name of a file of the folder without `.yaml`, or a name of its `variants.yaml`: a mapping from
            names to keys of a study with `of`, the file or the entry above from which it differs. Its keys replace the
            other's, but for `options`, which are added to the other's.
        folder: where names are looked for.

    Raises:
        ConfigurationError: there is none, with the nearest and all; or it cannot be read.
    """
    variants = _variants(folder)
    if name in variants and not (folder / f"{name}.yaml").is_file():
        return study_of(folder / f"{name}.yaml", _contents(name, variants, folder))
    if name == _VARIANTS and variants:
        raise ConfigurationError(
            f"Expected a study, but {folder / 'variants.yaml'} holds several: {', '.join(variants)}; name one."
        )
    return read_study(named_file(name, "a study", folder, besides=variants, apart=[_VARIANTS]))


def study_names(folder: Path = STUDIES) -> list[str]:
    """Every name that `named_study` knows in a folder."""
    files = {path.stem for path in folder.glob("*.yaml")} - {_VARIANTS}
    return sorted(files | _variants(folder).keys())


def _variants(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / f"{_VARIANTS}.yaml"
    variants = study_contents_of(path) if path.is_file() else {}
    wrong = [
        name for name, keys in variants.items() if not (isinstance(keys, dict) and isinstance(keys.get("of"), str))
    ]
    if wrong:
        raise ConfigurationError(
            f"Expected {path} to have mappings with `of` by name, but got {wrong[0]!r}: {variants[wrong[0]]!r}; write "
            "for example `relation_imdb: {of: relation, data: [imdb]}`."
        )
    return variants


def _contents(name: str, variants: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[Any, Any]:
    """What the file of an entry would hold."""
    own = {key: value for key, value in variants[name].items() if key != "of"}
    origin = variants[name]["of"]
    # Only entries above, in the order of the file: no entry can be of itself.
    above = list(variants)[: list(variants).index(name)]
    if (folder / f"{origin}.yaml").is_file():
        whole = study_contents_of(folder / f"{origin}.yaml")
    elif origin in above:
        whole = _contents(origin, variants, folder)
    else:
        known = [path.stem for path in folder.glob("*.yaml") if path.stem != _VARIANTS] + above
        raise ConfigurationError(
            f"Expected `of` of {name!r} in {folder / 'variants.yaml'} to be a study or an entry above it, but got "
            f"{origin!r}; correct it.{did_you_mean(origin, known)}"
        )
    options = [part.get("options") for part in (whole, own)]
    if all(isinstance(part, Mapping) for part in options):
        # Options are merged one by one, as everything else of the study is taken as a whole.
        own["options"] = {**whole["options"], **own["options"]}
    return {**whole, **own}
