"""Search over the options of a sweep file with Optuna, without an account: resumable, pruned, each trial a run folder.

<root>/search_<name>/
    search.db                what was tried, as Optuna keeps it
    trial_<k>/               the run folder of a trial
    trials.csv best.yaml     the table, and the best values as a part of an experiment
    history.png ...          Optuna's plots
"""

import csv
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from attn_lightning import run_folder
from attn_lightning.errors import ConfigurationError
from attn_lightning.files import write_json, write_text
from attn_lightning.locks import Claim
from attn_lightning.study.sweeps import Parameter, Sweep

try:
    import optuna
except ImportError as error:  # an extra: most users never search
    raise ConfigurationError(
        "Expected the package optuna for a search, but it is not installed; run `pip install 'attn-lightning[search]'`."
    ) from error

REPEATS = "repeats"
"""Where a trial keeps the number of the one that it repeats after a kill."""

_POLL_SECONDS = 0.5
_STOP_SECONDS = 60.0


def value_so_far(record: Mapping[str, Any], metric: str) -> float | None:
    """The value of a metric in a record of a run that may not have ended.

    Args:
        record: contents of `metrics.json`.
        metric: `val/...` of the best epoch as the run chose it, `best/val/...` the same, `test/...`, `evaluation/...`,
            or `train/...` of the last epoch.

    Returns:
        None where the run has no such number yet.
    """
    split, _, name = metric.partition("/")
    if split in ("test", "evaluation"):
        found = record.get(split, {}).get(metric)
    elif split == "best":
        found = record.get("best", {}).get(name)
    else:
        rows = record.get("history") or [{}]
        found = record.get("best", rows[-1]).get(metric) if split == "val" else rows[-1].get(metric)
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


class Search:
    """Trials of a sweep on this machine.

    Args:
        sweep: what is varied, and the metric.
        root: folder of all runs.
        seed: of the sampler.
        program: what runs a command.
    """

    def __init__(
        self, sweep: Sweep, root: Path, seed: int = 0, program: Sequence[str] = (sys.executable, "-m", "attn_lightning")
    ) -> None:
        if sweep.metric is None:
            raise ConfigurationError(f"Expected a `metric` in {sweep.path} to search for its best value, but got none.")
        self.sweep, self.root, self.program = sweep, root, program
        self.metric: str = sweep.metric
        self.folder = root / f"search_{sweep.path.stem}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.study = optuna.create_study(
            study_name=sweep.path.stem,
            storage=f"sqlite:///{self.folder / 'search.db'}",
            direction="maximize" if sweep.maximize else "minimize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1),
        )
        # The same seed after a restart would draw the points again that were tried already.
        self.study.sampler = _sampler(sweep, seed + len(self.study.trials))

    def run(self, trials: int, jobs: int, tell: Callable[[str], None]) -> None:
        """Run until this many trials have ended, those of earlier calls included.

        Args:
            trials: number of complete, pruned and failed trials.
            jobs: trials at a time.
            tell: shows a line.
        """
        while (left := trials - self.num_ended()) > 0:
            left -= self._repeat_killed()
            if left <= 0:
                # Another search, or a run that outlived its search, is at the rest; its end decides what is to do.
                time.sleep(_POLL_SECONDS)
                continue
            self.study.optimize(
                lambda trial: self._objective(trial, tell), n_trials=min(left, jobs), n_jobs=jobs, catch=(TrialFailed,)
            )
            if self.sweep.method == "grid" and self.num_ended() >= len(list(self.sweep.commands())):
                return

    def num_ended(self) -> int:
        """Trials that need no more work."""
        # A trial that a killed process left behind is repeated by a later one, which speaks for both.
        newest = {_original(trial): trial for trial in self.study.get_trials(deepcopy=False)}
        return sum(trial.state.is_finished() for trial in newest.values())

    def _repeat_killed(self) -> int:
        """Queue the trials of killed processes again, with the same values and in the same run folder.

        The lock of a trial tells at once whether anybody still works on it; a heartbeat would take its time to stop.

        Returns:
            Number of trials that somebody else works on.
        """
        elsewhere = 0
        for trial in self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            if "folder" not in trial.user_attrs:
                continue  # another search has just drawn it, or was killed before it began
            try:
                claim = Claim(self._lock(trial.user_attrs["folder"]))
            except BlockingIOError:
                elsewhere += 1
                continue
            self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            self.study.enqueue_trial(trial.params, user_attrs={REPEATS: _original(trial)})
            claim.release()
        return elsewhere

    def _objective(self, trial: "optuna.Trial", tell: Callable[[str], None]) -> float:
        values = {parameter.name: _suggest(trial, parameter) for parameter in self.sweep.parameters}
        number = _original(trial)
        folder = self.folder / f"trial_{number}"
        shown = " ".join(f"{name}={value}" for name, value in values.items())
        tell(f"started  trial {number}: {shown}")
        self._wait_for(trial, folder, values)
        record = run_folder.read_metrics(folder)
        value = value_so_far(record, self.metric)
        if record.get("status") == "pruned":
            tell(f"pruned   trial {number} after {len(record.get('history', []))} epochs")
            raise optuna.TrialPruned
        if record.get("status") != "complete" or value is None:
            reason = record.get("error") or f"no {self.metric} in {folder}"
            tell(f"FAILED   trial {number}: {reason} [{self._log(folder)}]")
            raise TrialFailed(reason)
        tell(f"done     trial {number}: {self.metric} {value:.4f}")
        return value

    def _wait_for(self, trial: "optuna.Trial", folder: Path, values: Mapping[str, Any]) -> None:
        """Run the command of a trial to its end, and stop it where it is clearly worse than the others."""
        claim = self._claim(folder)
        trial.set_user_attr("folder", folder.name)
        try:
            process = self._start(folder, values, claim)
            reported = -1
            try:
                while process.poll() is None:
                    time.sleep(_POLL_SECONDS)
                    with suppress(ConfigurationError):
                        reported = self._report(trial, folder, reported)
                    if reported >= 0 and trial.should_prune():
                        _stop(process)
                        self._mark_pruned(folder)
            except BaseException:
                _stop(process)
                raise
        finally:
            claim.release()

    def _claim(self, folder: Path) -> Claim:
        """The right to write into the folder: a run that outlived a killed search may still be at work there."""
        while True:
            try:
                return Claim(self._lock(folder.name))
            except BlockingIOError:
                time.sleep(_POLL_SECONDS)

    def _lock(self, name: str) -> Path:
        return self.folder / ".claims" / f"{name}.lock"

    def _start(self, folder: Path, values: Mapping[str, Any], claim: Claim) -> "subprocess.Popen[bytes]":
        own = {"run.root": self.root, "run.name": self.folder.name, "run.version": folder.name, "run.resume": "auto"}
        arguments = [*self.sweep.command(values), *(f"--{name}={value}" for name, value in own.items())]
        if "--run.wandb=true" in arguments:
            arguments.append("--run.wandb=false")
        with self._log(folder).open("ab") as log:
            return subprocess.Popen(
                [*self.program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(claim.descriptor,),
                start_new_session=True,
            )

    def _log(self, folder: Path) -> Path:
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        return logs / f"{folder.name}.log"

    def _report(self, trial: "optuna.Trial", folder: Path, reported: int) -> int:
        for epoch, value in learning_curve(run_folder.read_metrics(folder), self.metric, self.sweep.maximize):
            if epoch > reported:
                trial.report(value, epoch)
                reported = epoch
        return reported

    def _mark_pruned(self, folder: Path) -> None:
        """A pruned run is neither complete nor to be resumed."""
        record = run_folder.read_metrics(folder)
        if record.get("status") != "complete":
            write_json(folder / run_folder.METRICS, {**record, "status": "pruned"})

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
        """The best values as a part of an experiment: nested as `--config` takes them."""
        part: dict[str, Any] = {}
        for name, value in self.study.best_params.items():
            *above, last = name.split(".")
            place = part
            for key in above:
                place = place.setdefault(key, {})
                # Options of a class stand under `init_args` in a file, and the command line leaves that out.
                place = place.setdefault("init_args", {}) if key in ("method", "data", "backbone") else place
            place[last] = value
        return part

    def _write_best(self) -> Path:
        path = self.folder / "best.yaml"
        head = f"# {self.metric} {self.study.best_value:.6g} in {self.study.best_trial.user_attrs.get('folder')}\n"
        write_text(path, head + yaml.safe_dump(self.best_part(), sort_keys=False))
        return path

    def _write_plots(self) -> list[Path]:
        import matplotlib
        from matplotlib import pyplot
        from optuna.visualization import matplotlib as plots

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


class TrialFailed(Exception):
    """A run of the search ended without the value that is searched for; the search goes on."""


def _sampler(sweep: Sweep, seed: int) -> "optuna.samplers.BaseSampler":
    if sweep.method == "grid":
        return optuna.samplers.GridSampler({p.name: [_label(v) for v in p.values] for p in sweep.parameters}, seed)
    return optuna.samplers.TPESampler(seed=seed) if sweep.method == "bayes" else optuna.samplers.RandomSampler(seed)


def _suggest(trial: "optuna.Trial", parameter: Parameter) -> Any:
    step = parameter.step or None
    match parameter.kind:
        case "choice":
            labels = [_label(value) for value in parameter.values]
            return parameter.values[labels.index(trial.suggest_categorical(parameter.name, labels))]
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


def _label(value: Any) -> Any:
    """A choice as a database can hold it."""
    return value if isinstance(value, str | int | float | bool) else str(value)


def _original(trial: "optuna.Trial | optuna.trial.FrozenTrial") -> int:
    """The number of the trial that this one repeats, whose folder it goes on in; its own where it is the first."""
    return int(trial.user_attrs.get(REPEATS, trial.number))


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End a run in order, and by force if it does not listen."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
