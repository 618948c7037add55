"""From a study to its cells: which `fit` command every one of them is, in an order that never changes."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from attn_lightning.errors import ConfigurationError, did_you_mean
from attn_lightning.experiments import Experiments
from attn_lightning.study.configuration import Study, Variant
from attn_lightning.study.data_files import is_data_file, method_without_data

_LONGEST_NAME = 120


_CONTROLS = ("run.control", "run.suite_untrained")
"""They do not depend on the training: one run of a configuration measures them, unless the study says otherwise."""

SEED = "{seed}"
"""The value of an option that is the seed of each cell."""

_WITH_THE_STUDY = ("run.report",)
"""What a study does once, at its end, for all of its runs."""


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
        bases: runs of the same seed that this one begins from, as `(label of the method, run.name)`; an override
            `{label}/FILE` is that file of the run.
        composed: options of `fit` in the place of `config`, where the data is a file and has no name.
    """

    method: str
    data: str
    options: str
    seed: int
    config: Path
    overrides: tuple[tuple[str, str], ...]
    name: str
    control: bool
    bases: tuple[tuple[str, str], ...] = ()
    composed: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """`run.version`: the seed."""
        return f"seed_{self.seed}"

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"

    def folder(self, root: Path) -> Path:
        """The run folder."""
        return root / self.name / self.version

    def base_folders(self, root: Path) -> list[Path]:
        """The run folders of the cells that have to be complete before this one starts."""
        return [root / name / self.version for _, name in self.bases]

    def base_files(self, root: Path) -> dict[str, Path]:
        """What this cell reads of them, by the option that names it."""
        return {name: Path(self._filled(value, root)) for name, value in self.overrides if based_on(value) is not None}

    def _filled(self, value: str, root: Path) -> str:
        label = based_on(value)
        return value if label is None else str(root / dict(self.bases)[label] / self.version / value[len(label) + 3 :])

    @property
    def switched_off(self) -> list[str]:
        """Options that another cell or the study itself sees to, and that this cell's own options do not name."""
        chosen = {name for name, _ in self.overrides}
        # An option that the study names is the user's word, even for a control in every run.
        unneeded = (*_WITH_THE_STUDY, *(() if self.control else _CONTROLS))
        return [option for option in unneeded if option not in chosen]

    def arguments(self, root: Path) -> list[str]:
        """The command line after `python -m attn_lightning`."""
        return [
            "fit",
            *(self.composed or ("--config", str(self.config))),
            f"--seed_everything={self.seed}",
            f"--run.root={root}",
            f"--run.name={self.name}",
            f"--run.version={self.version}",
            *(f"--{option}=false" for option in self.switched_off),
            *(f"--{name}={self._filled(value, root)}" for name, value in self.overrides),
        ]


def expand(study: Study) -> list[Cell]:
    """All cells of a study, seeds outermost, so that a study stopped early has something to compare.

    Raises:
        ConfigurationError: an experiment file is missing, two cells would share a run folder, or a method begins from
            one that the study does not have or that begins from it in turn.
    """
    _check_bases(study)
    experiments = Experiments(study.experiments)
    cells = [
        _cell(study, experiments, method, data, options, seed)
        # Seeds outermost: a study that is stopped early has whole rows of methods to compare.
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


def find_cell(cells: Sequence[Cell], name: str) -> Cell:
    """The cell of this name.

    Args:
        cells: those of a study.
        name: as `str(cell)` writes it, `METHOD_DATA/seed_0`.

    Raises:
        ConfigurationError: there is none; names the nearest.
    """
    by_name = {str(cell): cell for cell in cells}
    if name not in by_name:
        raise ConfigurationError(
            f"Expected one of the {len(cells)} cells of the study, such as {cells[0]}, but got {name!r}; `--dry-run` "
            f"lists them.{did_you_mean(name, by_name)}"
        )
    return by_name[name]


def based_on(value: str) -> str | None:
    """The label of the method whose run an override begins with, as in `{vanilla}/checkpoints/best.ckpt`."""
    found = re.match(r"\{([^{}]+)\}/", value)
    return found[1] if found else None


def _bases(variant: Variant) -> list[str]:
    return [label for _, value in variant.overrides if (label := based_on(value)) is not None]


def _check_bases(study: Study) -> None:
    # Data and options are what a run shares with the one that it begins from: only a method can name another.
    for variant in (*study.data, *study.options):
        for label in _bases(variant):
            raise ConfigurationError(
                f"Expected only `methods` of {study.name} to begin from the run of another, but got {{{label}}} in "
                f"{variant.label or 'options'!r}; move that option to the methods."
            )
    bases = {method.label: _bases(method) for method in study.methods}
    for method, above in bases.items():
        for label in above:
            if label not in bases:
                raise ConfigurationError(
                    f"Expected {method!r} in {study.name} to begin from another of its methods, but got {{{label}}}; "
                    f"name one of {', '.join(bases)}.{did_you_mean(label, bases)}"
                )
    try:
        # Only for its error: the order itself comes from what is finished while the study runs.
        TopologicalSorter(bases).prepare()
    except CycleError as error:
        raise ConfigurationError(
            f"Expected the methods of {study.name} to begin from runs that can be first, but got a circle: "
            f"{' before '.join(error.args[1])}; break it."
        ) from None


def _run_name(method: str, data: str, options: str) -> str:
    return _safe("_".join(label for label in (method, data, options) if label))


def _cell(study: Study, experiments: Experiments, method: Variant, data: Variant, options: Variant, seed: int) -> Cell:
    experiment = study.experiment_name.format(method=method.experiment, data=data.experiment)
    of_file = Path(data.experiment).suffix in (".yaml", ".yml")
    if is_data_file(data.experiment):
        # Absolute, as the record of the run has it: a study may be gone on with from another folder.
        file = f"--data={Path(data.experiment).resolve()}"
        composed: tuple[str, ...] = (*method_without_data(experiments, method.experiment).arguments(), file)
    elif of_file:
        composed = tuple(experiments.with_data(method.experiment, Path(data.experiment)).arguments())
    else:
        # Only for its error: the command of the cell names the experiment, and finds it again when it runs.
        experiments.find(experiment)
        composed = ()
    # The more special ones win: what a method says of itself over what the data and all cells are given.
    overrides = {**dict(options.overrides), **dict(data.overrides), **dict(method.overrides)}
    return Cell(
        method=method.label,
        data=data.label,
        options=options.label,
        seed=seed,
        config=study.experiments / f"{experiment}.yaml",
        overrides=tuple((name, str(seed) if value == SEED else value) for name, value in overrides.items()),
        name=_run_name(method.label, data.label, options.label),
        # The first seed of the study and not seed 0, which it may not have.
        control=seed == study.seeds[0],
        bases=tuple((label, _run_name(label, data.label, options.label)) for label in dict.fromkeys(_bases(method))),
        composed=composed,
    )


def _safe(name: str) -> str:
    """A label as a folder name; a digest keeps apart what would be cut off or replaced."""
    # With a digest below, because two names may become equal when their other signs are replaced.
    safe = re.sub(r"[^A-Za-z0-9._+=,-]", "-", name)
    safe = safe if re.match(r"[A-Za-z0-9]", safe) else f"x{safe}"
    if safe == name and len(safe) <= _LONGEST_NAME:
        return safe
    return f"{safe[:_LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
