"""Search over the options of a sweep file with Optuna, without an account: resumable, pruned, each trial a run folder.

<root>/search_<name>/
    search.db                what was tried, as Optuna keeps it
    trial_<k>/               the run folder of a trial
    trials.csv best.yaml     the table, and the best values as a part of an experiment
    history.png ...          Optuna's plots
"""

import csv
import io
import itertools
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from attn_lightning import run_folder
from attn_lightning.errors import ConfigurationError
from attn_lightning.files import write_json, write_text
from attn_lightning.locks import Claim, is_held
from attn_lightning.run_folder import LOCK
from attn_lightning.study.engines import Ended, Engine, Job
from attn_lightning.study.sweeps import Parameter, Sweep, as_part

try:
    import optuna
except ImportError as error:  # an extra: most users never search
    raise ConfigurationError(
        "Expected the package optuna for a search, but it is not installed; run `pip install 'attn-lightning[search]'`."
    ) from error

REPEATS = "repeats"
"""Where a trial keeps the number of the one that it repeats after a kill."""

_IDENTITY = "sweep"
"""Where the database keeps what it was made for; that of an earlier version does not say."""

_POLL_SECONDS = 0.5


def value_so_far(record: Mapping[str, Any], metric: str) -> float | None:
    """The value of a metric in a record of a run that may not have ended.

    Args:
        record: contents of `metrics.json`.
        metric: `val/...` of the best epoch as the run chose it, `best/val/...` the same, `test/...`, `evaluation/...`,
            or `train/...` of the last epoch that has it.

    Returns:
        None where the run has no such number yet.
    """
    split, _, name = metric.partition("/")
    if split in ("test", "evaluation"):
        found = record.get(split, {}).get(metric)
    elif split == "best":
        found = record.get("best", {}).get(name)
    else:
        # Not every epoch is validated.
        rows: Sequence[Mapping[str, Any]] = record.get("history", [])
        last: Mapping[str, Any] = next((row for row in reversed(rows) if metric in row), {})
        found = record.get("best", last).get(metric) if split == "val" else last.get(metric)
    return None if found is None else float(found)


def learning_curve(record: Mapping[str, Any], metric: str, maximize: bool) -> list[tuple[int, float]]:
    """Epochs and the best value until each, for pruning; empty for a metric of the finished run.

    Args:
        record: contents of `metrics.json`.
        metric: `best/val/...` or `val/...`.
        maximize: whether more is better.
    """
    name = metric.removeprefix("best/")
    curve: list[tuple[int, float]] = []
    for row in record.get("history", []):
        if row.get(name) is not None:
            value = float(row[name])
            if curve:
                value = max(value, curve[-1][1]) if maximize else min(value, curve[-1][1])
            curve.append((int(row["epoch"]), value))
    return curve


@dataclass
class _Open:
    """A trial at work: its run folder, the last epoch that Optuna knows, and whether it was told to end."""

    trial: "optuna.Trial"
    folder: Path
    reported: int = -1
    pruned: bool = False


class Search:
    """Trials of a sweep.

    Args:
        sweep: what is varied, and the metric.
        root: folder of all runs.
        seed: of the sampler.
    """

    def __init__(self, sweep: Sweep, root: Path, seed: int = 0) -> None:
        if sweep.metric is None:
            raise ConfigurationError(f"Expected a `metric` in {sweep.path} to search for its best value, but got none.")
        if uneven := [parameter.name for parameter in sweep.parameters if parameter.kind == "log" and parameter.step]:
            # Optuna knows no steps on a logarithmic range, and would draw any number of it.
            raise ConfigurationError(
                f"Expected logarithmic ranges without `q` for a search, but got one for {uneven[0]!r} in {sweep.path}; "
                "list its `values`, or leave `q` out."
            )
        self.sweep, self.root = sweep, root
        self.metric: str = sweep.metric
        self.folder = root / f"search_{sweep.path.stem}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.study = optuna.create_study(
            study_name=sweep.path.stem,
            storage=f"sqlite:///{self.folder / 'search.db'}",
            direction="maximize" if sweep.maximize else "minimize",
            load_if_exists=True,
            # Five trials make a median worth comparing with, and after one epoch nobody can be judged.
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1),
        )
        self._check_identity()
        # The same seed after a restart would draw the points again that were tried already.
        self.study.sampler = _sampler(sweep, seed + len(self.study.trials))
        self._open: dict[str, _Open] = {}

    def _check_identity(self) -> None:
        """Refuse trials of another sweep under the same name: they would be compared with those of this one."""
        now, before = self.sweep.identity, self.study.user_attrs.get(_IDENTITY)
        if before is None:
            self.study.set_user_attr(_IDENTITY, now)
            return
        changed = [key for key in ("command", "metric") if before[key] != now[key]]
        for name, kind in now["parameters"].items():
            # A new one was at its default so far, and of a wider range the numbers are still those of the option.
            if before["parameters"].get(name, kind) != kind:
                changed.append(f"parameters.{name}")
        if changed:
            raise ConfigurationError(
                f"Expected {self.sweep.path} as it was when {self.folder} was begun, but `{'`, `'.join(changed)}` has "
                "changed, so that earlier trials cannot be compared with new ones; save it under another name, or move "
                "the folder away."
            )

    def run(self, trials: int, engine: Engine, jobs: int, tell: Callable[[str], None]) -> None:
        """Run until this many trials have ended, those of earlier calls included.

        Args:
            trials: number of complete, pruned and failed trials.
            engine: runs the commands of the trials; it is closed at the end.
            jobs: trials at a time, as far as the engine has room.
            tell: shows a line.
        """
        if self.sweep.method == "grid":
            trials = min(trials, self._queue_grid())
        # Held while this search lives: that is how another one tells its trials from those of a killed one.
        claim = Claim(self._claims / f"search_{uuid.uuid4().hex}.lock")
        try:
            while True:
                elsewhere = self._repeat_killed()
                # Trials that other searches work on count as coming: two searches together must not do more than was
                # asked for.
                while len(self._open) < jobs and engine.has_room() and self._missing(trials) > elsewhere:
                    self._start(engine, claim.path.name, tell)
                if not self._open and self._missing(trials) <= 0:
                    return
                for ended in engine.ended(_POLL_SECONDS):
                    self._end(self._open.pop(ended.name), ended, tell)
                self._prune(engine)
        finally:
            self._open.clear()
            if said := engine.close():
                tell(said)
            claim.release(remove=True)

    @property
    def _claims(self) -> Path:
        return self.folder / ".claims"

    def _missing(self, trials: int) -> int:
        """Trials that have neither ended nor are at work here."""
        return trials - self.num_ended() - len(self._open)

    def num_ended(self) -> int:
        """Trials that need no more work."""
        # A trial that a killed process left behind is repeated by a later one, which speaks for both.
        newest = {_original(trial): trial for trial in self.study.get_trials(deepcopy=False)}
        return sum(trial.state.is_finished() for trial in newest.values())

    def _queue_grid(self) -> int:
        """Put every combination of a grid into the queue that is not there yet; the number of combinations."""
        axes = [[(parameter.name, _label(value)) for value in parameter.values] for parameter in self.sweep.parameters]
        combinations = [dict(chosen) for chosen in itertools.product(*axes)]
        known = [_chosen(trial) for trial in self.study.get_trials(deepcopy=False)]
        for values in combinations:
            if values not in known:
                self.study.enqueue_trial(values)
        return len(combinations)

    def _repeat_killed(self) -> int:
        """Queue the trials of killed searches again, with the same values and in the same run folder.

        Locks tell at once whether anybody still works on a trial: its search, or a run that outlived that. A heartbeat
        would take its time to stop.

        Returns:
            Number of trials that somebody else works on.
        """
        elsewhere = 0
        here = {each.trial.number for each in self._open.values()}
        for trial in self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            if "folder" not in trial.user_attrs or trial.number in here:
                continue  # another search has just drawn it, or was killed before it began
            places = (self._claims / trial.user_attrs["search"], self.folder / trial.user_attrs["folder"] / LOCK)
            if any(is_held(place) for place in places):
                elsewhere += 1
                continue
            self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            self.study.enqueue_trial(trial.params, user_attrs={REPEATS: _original(trial)})
        return elsewhere

    def _start(self, engine: Engine, search: str, tell: Callable[[str], None]) -> None:
        """Draw a trial, or take the next one of the queue, and hand its command to the engine."""
        trial = self.study.ask()
        values = {parameter.name: _suggest(trial, parameter) for parameter in self.sweep.parameters}
        # The folder of the first attempt, where a repeated trial finds its checkpoint and goes on.
        folder = self.folder / f"trial_{_original(trial)}"
        trial.set_user_attr("search", search)
        trial.set_user_attr("folder", folder.name)
        tell(f"started  {folder.name}: {' '.join(f'{name}={value}' for name, value in values.items())}")
        self._open[folder.name] = _Open(trial, folder)
        engine.submit(Job(folder.name, tuple(self._command(folder, values)), self._log(folder)))

    def _command(self, folder: Path, values: Mapping[str, Any]) -> list[str]:
        own = {"run.root": self.root, "run.name": self.folder.name, "run.version": folder.name, "run.resume": "auto"}
        arguments = [*self.sweep.command(values), *(f"--{name}={value}" for name, value in own.items())]
        return [*arguments, *(["--run.wandb=false"] if "--run.wandb=true" in arguments else [])]

    def _log(self, folder: Path) -> Path:
        return self.folder / "logs" / f"{folder.name}.log"

    def _end(self, ended: "_Open", how: Ended, tell: Callable[[str], None]) -> None:
        """Tell Optuna what came of a trial, which its run folder says."""
        record = run_folder.read_metrics(ended.folder)
        value = value_so_far(record, self.metric)
        name = ended.folder.name
        if ended.pruned and record.get("status") != "complete":
            # Neither complete nor to be resumed.
            write_json(ended.folder / run_folder.METRICS, {**record, "status": "pruned"})
            self.study.tell(ended.trial, state=optuna.trial.TrialState.PRUNED)
            tell(f"pruned   {name} after {len(record.get('history', []))} epochs")
        elif record.get("status") == "complete" and value is not None:
            self.study.tell(ended.trial, value)
            tell(f"done     {name}: {self.metric} {value:.4f}")
        else:
            self.study.tell(ended.trial, state=optuna.trial.TrialState.FAIL)
            reason = record.get("error") or how.reason or f"no {self.metric} in {ended.folder}"
            tell(f"FAILED   {name}: {reason} [{self._log(ended.folder)}]")

    def _prune(self, engine: Engine) -> None:
        """Report what the validations of the trials have found so far, and stop those clearly worse than others."""
        for name, each in self._open.items():
            with suppress(ConfigurationError):  # a record that is just being replaced on a slow disk
                self._report(each)
            if each.reported >= 0 and not each.pruned and each.trial.should_prune():
                each.pruned = True
                engine.stop(name)

    def _report(self, each: "_Open") -> None:
        for epoch, value in learning_curve(run_folder.read_metrics(each.folder), self.metric, self.sweep.maximize):
            if epoch > each.reported:
                each.trial.report(value, epoch)
                each.reported = epoch

    # --- results --------------------------------------------------------------------------------------------------

    def write_results(self) -> list[Path]:
        """Write the table, the best values and Optuna's plots; the files."""
        files = [self._write_table()]
        if any(trial.state == optuna.trial.TrialState.COMPLETE for trial in self.study.get_trials(deepcopy=False)):
            files += [self._write_best(), *self._write_plots()]
        return files

    def _write_table(self) -> Path:
        names = [parameter.name for parameter in self.sweep.parameters]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["trial", "state", self.metric, *names, "folder"])
        for trial in self.study.get_trials(deepcopy=False):
            chosen = [trial.params.get(name, "") for name in names]
            value = "" if trial.value is None else trial.value
            writer.writerow(
                [trial.number, trial.state.name.lower(), value, *chosen, trial.user_attrs.get("folder", "")]
            )
        path = self.folder / "trials.csv"
        write_text(path, text.getvalue())
        return path

    def best_part(self) -> dict[str, Any]:
        """The best values as a part of an experiment."""
        parameters = {parameter.name: parameter for parameter in self.sweep.parameters}
        return as_part(
            {
                name: _value(parameters[name], found) if name in parameters else found
                for name, found in self.study.best_params.items()
            }
        )

    def _write_best(self) -> Path:
        path = self.folder / "best.yaml"
        head = f"# {self.metric} {self.study.best_value:.6g} in {self.study.best_trial.user_attrs.get('folder')}\n"
        write_text(path, head + yaml.safe_dump(self.best_part(), sort_keys=False))
        return path

    def _write_plots(self) -> list[Path]:
        import matplotlib
        from matplotlib import pyplot
        from optuna.visualization import matplotlib as plots

        # No window: searches run on machines without a screen.
        matplotlib.use("Agg")
        drawn: dict[str, Callable[[Any], Any]] = {"history": plots.plot_optimization_history, "slice": plots.plot_slice}
        complete = self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        if len(complete) > 1 and len({trial.value for trial in complete}) > 1:
            # Importances are shares of the variance of the results, and need some.
            drawn["importance"] = plots.plot_param_importances
        files = []
        for name, draw in drawn.items():
            axes = draw(self.study)
            figure = (axes.flat[0] if hasattr(axes, "flat") else axes).figure
            path = self.folder / f"{name}.png"
            figure.savefig(path, dpi=150, bbox_inches="tight")
            pyplot.close(figure)
            files.append(path)
        return files


def _sampler(sweep: Sweep, seed: int) -> "optuna.samplers.BaseSampler":
    # The points of a grid wait in the queue; no sampler is asked for them.
    return optuna.samplers.TPESampler(seed=seed) if sweep.method == "bayes" else optuna.samplers.RandomSampler(seed)


def _suggest(trial: "optuna.Trial", parameter: Parameter) -> Any:
    step = parameter.step or None
    match parameter.kind:
        case "choice":
            labels = [_label(value) for value in parameter.values]
            return _value(parameter, trial.suggest_categorical(parameter.name, labels))
        case "integer":
            return trial.suggest_int(parameter.name, int(parameter.low), int(parameter.high), step=int(step or 1))
        case "log":
            return trial.suggest_float(parameter.name, parameter.low, parameter.high, log=True)
        case "normal":
            # Optuna has no normal distribution: three standard deviations to each side.
            spread = 3 * parameter.high
            return trial.suggest_float(parameter.name, parameter.low - spread, parameter.low + spread, step=step)
        case _:
            return trial.suggest_float(parameter.name, parameter.low, parameter.high, step=step)


def _value(parameter: Parameter, drawn: Any) -> Any:
    """What stands on the command line for a number or a label that was drawn."""
    # A search of an earlier version may have drawn what is no choice any more.
    return {_label(value): value for value in parameter.values}.get(drawn, drawn)


def _label(value: Any) -> Any:
    """A choice as a database can hold it."""
    return value if isinstance(value, str | int | float | bool) else str(value)


def _original(trial: "optuna.Trial | optuna.trial.FrozenTrial") -> int:
    """The number of the trial that this one repeats, whose folder it goes on in; its own where it is the first."""
    return int(trial.user_attrs.get(REPEATS, trial.number))


def _chosen(trial: "optuna.trial.FrozenTrial") -> dict[str, Any]:
    """The values of a trial, or those that wait in the queue for it."""
    waiting: dict[str, Any] = trial.system_attrs.get("fixed_params", {})
    return trial.params or waiting
