"""From a study to its cells: which `fit` command every one of them is, in an order that never changes."""

import difflib
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from attn_lightning.errors import ConfigurationError
from attn_lightning.study.configuration import Study, Variant

_LONGEST_NAME = 120


_CONTROLS = ("run.control", "run.suite_untrained")
"""They know nothing of the training: one run of a configuration measures them, unless the study says otherwise."""


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        method: label of the method.
        data: label of the data.
        options: label of the options; empty if there is one set of them.
        seed: `seed_everything`.
        config: the experiment file.
        overrides: options of `fit` beyond it, as `(name, value)`.
        name: `run.name`: the cell without its seed.
        control: measure the controls in this run.
    """

    method: str
    data: str
    options: str
    seed: int
    config: Path
    overrides: tuple[tuple[str, str], ...]
    name: str
    control: bool

    @property
    def version(self) -> str:
        """`run.version`: the seed."""
        return f"seed_{self.seed}"

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"

    def folder(self, root: Path) -> Path:
        """The run folder."""
        return root / self.name / self.version

    def arguments(self, root: Path) -> list[str]:
        """The command line after `python -m attn_lightning`."""
        chosen = {name for name, _ in self.overrides}
        left_out = [] if self.control else [option for option in _CONTROLS if option not in chosen]
        return [
            "fit",
            "--config",
            str(self.config),
            f"--seed_everything={self.seed}",
            f"--run.root={root}",
            f"--run.name={self.name}",
            f"--run.version={self.version}",
            *(f"--{option}=false" for option in left_out),
            *(f"--{name}={value}" for name, value in self.overrides),
        ]


def expand(study: Study) -> list[Cell]:
    """All cells of a study, seeds outermost, so that a study stopped early has something to compare.

    Raises:
        ConfigurationError: an experiment file is missing, or two cells would share a run folder.
    """
    cells = [
        _cell(study, method, data, options, seed)
        for seed in study.seeds
        for options in study.options
        for data in study.data
        for method in study.methods
    ]
    names: dict[str, Cell] = {}
    for cell in cells:
        other = names.setdefault(str(cell), cell)
        if other is not cell:
            raise ConfigurationError(
                f"Expected every cell of {study.name} to have a name of its own, but {cell.method!r} on {cell.data!r} "
                f"and {other.method!r} on {other.data!r} are both {cell.name!r}; rename one."
            )
    return cells


def _cell(study: Study, method: Variant, data: Variant, options: Variant, seed: int) -> Cell:
    # The more special ones win: what a method says of itself over what the data and all cells are given.
    overrides = {**dict(options.overrides), **dict(data.overrides), **dict(method.overrides)}
    name = "_".join(label for label in (method.label, data.label, options.label) if label)
    return Cell(
        method=method.label,
        data=data.label,
        options=options.label,
        seed=seed,
        config=_experiment(
            study.experiments, study.experiment_name.format(method=method.experiment, data=data.experiment)
        ),
        overrides=tuple(overrides.items()),
        name=_safe(name),
        control=seed == study.seeds[0],
    )


def _experiment(folder: Path, name: str) -> Path:
    path = folder / f"{name}.yaml"
    if path.is_file():
        return path
    names = sorted(found.stem for found in folder.glob("*.yaml") if found.stem != "base")
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f" Nearest: {', '.join(near)}." if near else ""
    raise ConfigurationError(
        f"Expected an experiment {path} for this method and data, but there is none.{hint} All: {', '.join(names)}."
    )


def _safe(name: str) -> str:
    """A label as a folder name; a digest keeps apart what would be cut off or replaced."""
    safe = re.sub(r"[^A-Za-z0-9._+=,-]", "-", name)
    safe = safe if re.match(r"[A-Za-z0-9]", safe) else f"x{safe}"
    if safe == name and len(safe) <= _LONGEST_NAME:
        return safe
    return f"{safe[:_LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
