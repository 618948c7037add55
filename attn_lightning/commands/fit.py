"""`fit`, `validate` and `test`: LightningCLI with a method slot, run folders and errors in one line."""

import csv
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import datasets
import yaml
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from attn_lightning import run_folder
from attn_lightning.callbacks.epoch_seed import EpochSeed
from attn_lightning.callbacks.run_record import EpochSummary, RunRecord
from attn_lightning.checkpoint import read_checkpoint
from attn_lightning.commands.parsing import (
    OneLineErrorParser,
    check_config_files,
    class_change_resets_arguments,
    print_cards,
    with_checkpoint_config,
)
from attn_lightning.console import show_messages, stdout_console
from attn_lightning.data.datamodule import TextDataModule
from attn_lightning.errors import AttnLightningError, ConfigurationError
from attn_lightning.evaluation.catalog import FAST_EXPLAINERS, chosen_explainers, chosen_families
from attn_lightning.evaluation.results import print_results
from attn_lightning.evaluation.runner import EvaluatedModel, EvaluationOptions, evaluate
from attn_lightning.evaluation.suite import Plan
from attn_lightning.evaluation.summary import print_summary
from attn_lightning.files import file_digest
from attn_lightning.methods.base import Method
from attn_lightning.module import AttentionModule

_FOLDER_VARIABLE = "ATTN_LIGHTNING_RUN_FOLDER"
"""Hands the run folder to the processes that Lightning starts for DDP by running the same command again."""


@dataclass(frozen=True)
class RunOptions:
    """Where a run is kept and what happens around the training.

    Args:
        root: folder of all runs.
        name: name of the experiment; the file name of the last `--config` by default.
        version: name of this run's own folder; the next free `version_<k>` by default. Never overwritten.
        test: test the best epoch after the training.
        control: measure a TF-IDF logistic regression on the same data beside it (text only).
        suite: what is measured on the test split after the training, as `evaluate --suite` takes it, beside
            uninformative explanations; `none` measures nothing more.
        suite_untrained: measure an untrained model beside it, which takes as long again.
        suite_examples: on a random subset of so many test examples; null takes all.
        suite_explainers: the explanations that are judged, as `evaluate --explainers` takes them.
        monitor: the validation metric that decides which epoch is kept.
        monitor_mode: whether more or less of it is better.
        wandb: also log to Weights & Biases; `WANDB_MODE=offline` needs no account and no network.
        wandb_project: its project.
    """

    root: Path = Path("runs")
    name: str | None = None
    version: str | None = None
    test: bool = True
    control: bool = True
    suite: str = "fast"
    suite_untrained: bool = True
    suite_examples: int | None = 500
    suite_explainers: str = FAST_EXPLAINERS
    monitor: str = "val/accuracy"
    monitor_mode: Literal["max", "min"] = "max"
    wandb: bool = False
    wandb_project: str = "attn_lightning"


class RunConfig(SaveConfigCallback):
    """Writes the whole configuration into the run folder, and uploads it once to the loggers that can hold it.

    A resumed run keeps its first `config.yaml` and adds `config_resumed_<k>.yaml`.

    Args:
        parser: parser of the subcommand.
        config: its parsed configuration.
        folder: the run folder.
        options: the other options of Lightning's callback.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace, folder: Path, **options: Any) -> None:
        super().__init__(parser, config, save_to_log_dir=False, **options)
        self.folder = folder

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called on the first process only."""
        config = self.config.clone()
        config.pop("ckpt_path", None)
        self.parser.save(config, self._free_path(), skip_unset=False, multifile=False)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                contents = yaml.safe_load(self.parser.dump(config, skip_unset=False))
                logger.experiment.config.update(contents, allow_val_change=True)

    def _free_path(self) -> Path:
        path, number = self.folder / run_folder.CONFIG, 0
        while path.exists():
            number += 1
            path = self.folder / f"config_resumed_{number}.yaml"
        return path


class AttentionCLI(LightningCLI):
    """LightningCLI with the `method` slot and one folder per run."""

    folder: Path
    record: RunRecord
    resumed: Path | None = None
    _created: Path | None = None

    def __init__(self, arguments: Sequence[str]) -> None:
        try:
            super().__init__(
                AttentionModule,
                LightningDataModule,
                subclass_mode_data=True,
                save_config_callback=RunConfig,
                parser_class=OneLineErrorParser,
                auto_configure_optimizers=False,
                seed_everything_default=0,
                args=list(arguments),
            )
        except BaseException:
            self._close_wandb(exit_code=1)
            if self._created is not None:
                run_folder.remove_unused(self._created)
            raise
        self._close_wandb(exit_code=0)

    def _close_wandb(self, exit_code: int) -> None:
        """End the W&B run: a later one in the same process would silently go on with it."""
        trainer = getattr(self, "trainer", None)
        if trainer is not None and any(isinstance(logger, WandbLogger) for logger in trainer.loggers):
            import wandb

            wandb.finish(exit_code=exit_code)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """`predict` is a command of its own: it needs no configuration."""
        skipped = {"model", "dataloaders", "datamodule"}
        return {
            "fit": {*skipped, "train_dataloaders", "val_dataloaders"},
            "validate": skipped,
            "test": skipped,
        }

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Abbreviated options are typos here: `--trainer.max_epoch` must not pass for `max_epochs`."""
        return super().init_parser(**{"allow_abbrev": False, **kwargs})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the method slot and the run options."""
        parser.add_subclass_arguments(Method, "method", required=False)
        parser.add_class_arguments(RunOptions, "run")
        # Training from the first second: a model summary and a rehearsal of the validation help nobody here.
        parser.set_defaults(
            {"trainer.max_epochs": 8, "trainer.num_sanity_val_steps": 0, "trainer.enable_model_summary": False}
        )

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Our table is printed instead of Lightning's."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand != "fit":
            parser.set_defaults({"verbose": False})
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse without the base class's warning, which is about notebooks."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """The configuration beside the checkpoint was read already, so nothing can be overridden in silence."""

    @property
    def options(self) -> Namespace:
        """The parsed configuration of the subcommand."""
        options: Namespace = self.config[self.config.subcommand]
        return options

    def before_instantiate_classes(self) -> None:
        """Find or make the run folder before anything can write."""
        name = self.options.run.name or _experiment_name(self.options.get("config"))
        self.options.run.name = name
        if self.options.run.suite != "none":
            chosen_families(self.options.run.suite)
            chosen_explainers(self.options.run.suite_explainers)
        self.folder = self._run_folder(name)
        self.save_config_kwargs = {"folder": self.folder}
        if not sys.stdout.isatty() and self.options.trainer.enable_progress_bar is None:
            # A bar redrawn thousands of times is useless in a log file; the line per epoch stays.
            self.options.trainer.enable_progress_bar = False

    def instantiate_classes(self) -> None:
        """Show what a class says of its arguments, not jsonargparse's list of all types that were tried."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            if isinstance(error.__cause__, AttnLightningError):
                raise error.__cause__ from None
            raise

    def after_instantiate_classes(self) -> None:
        """Testing a checkpoint on a new machine must not train word vectors first."""
        if self.config.subcommand != "fit" and isinstance(self.datamodule, TextDataModule):
            self.datamodule.makes_word_vectors = False

    def _run_folder(self, name: str) -> Path:
        if _FOLDER_VARIABLE in os.environ:
            return Path(os.environ[_FOLDER_VARIABLE])
        root = Path(self.options.run.root)
        checkpoint = self.options.get("ckpt_path")
        if self.config.subcommand != "fit":
            folder = self._created = self._evaluation_folder(checkpoint)
        elif checkpoint:
            path = run_folder.last_checkpoint(root, name) if checkpoint == "last" else Path(checkpoint)
            self.options.ckpt_path, self.resumed = str(path), path
            folder = run_folder.of_checkpoint(path)
            self._refuse_complete(folder)
        else:
            folder = self._new_folder(root, name)
        os.environ[_FOLDER_VARIABLE] = str(folder)
        return folder

    def _new_folder(self, root: Path, name: str) -> Path:
        version = self.options.run.version
        if _rank() == 0:
            self._created = run_folder.create(root, name, version)
            return self._created
        if version is None:
            raise ConfigurationError(
                "Expected `--run.version` when the processes are started from outside, but got none; give all of "
                "them the same one, so that they share a run folder."
            )
        return root / name / str(version)

    def _evaluation_folder(self, checkpoint: str | None) -> Path:
        command = self.config.subcommand
        if not checkpoint:
            raise ConfigurationError(
                f"Expected `--ckpt_path` with `{command}`, but got none; give a file such as RUN/checkpoints/best.ckpt."
            )
        return run_folder.create_evaluation(Path(checkpoint), command)

    def _refuse_complete(self, folder: Path) -> None:
        record = run_folder.read_metrics(folder)
        done = len(record.get("history", []))
        # Killed between the last epoch and the end of its test, a run still has that to do.
        tested = "test" in record or not self.options.run.test
        if record.get("status") == "complete" and tested and done >= (self.options.trainer.max_epochs or 0) >= 0:
            raise ConfigurationError(
                f"Expected an unfinished run, but {folder} is complete with {done} epochs; raise "
                "`--trainer.max_epochs` to train it longer, or leave `--ckpt_path` out for a new run."
            )

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Add the method, the run record, checkpoints and loggers to what the configuration asks for."""
        self.record = RunRecord(self.folder, self.options.run.name)
        method = self._get(self.config_init, "method")
        fits = self.config.subcommand == "fit"
        if fits and method is not None:
            callbacks.append(method)
        if "PL_GLOBAL_SEED" in os.environ:
            callbacks.append(EpochSeed(int(os.environ["PL_GLOBAL_SEED"])))
        callbacks.extend([self.record, EpochSummary()])
        if fits and config["enable_checkpointing"] is not False and not config["fast_dev_run"]:
            callbacks.extend(self._checkpoints())
        config = {**config, "logger": self._loggers(config["logger"])}
        # Our batch samplers deal out the examples themselves, in buckets of similar length.
        config["use_distributed_sampler"] = False
        try:
            return super()._instantiate_trainer(config, callbacks)
        except ValueError as error:
            raise ConfigurationError(f"Expected options that Lightning's Trainer takes, but got: {error}") from error

    def _checkpoints(self) -> list[ModelCheckpoint]:
        """One for the best epoch and one for the last: Lightning's own `save_last` follows the best one only."""
        options: dict[str, Any] = {
            "dirpath": self.folder / run_folder.CHECKPOINTS,
            "auto_insert_metric_name": False,
            "enable_version_counter": False,
        }
        best = ModelCheckpoint(
            filename="best", monitor=self.options.run.monitor, mode=self.options.run.monitor_mode, **options
        )
        return [best, ModelCheckpoint(filename="last", **options)]

    def _loggers(self, chosen: Any) -> list[Logger] | bool:
        if chosen is False or _rank() != 0:
            return False
        loggers: list[Logger] = [_csv_logger(self.folder, self.resumed)] if self.config.subcommand == "fit" else []
        if self.options.run.wandb:
            loggers.append(_wandb_logger(self.folder, self.options.run))
        if chosen not in (None, True):
            loggers.extend(chosen if isinstance(chosen, list) else [chosen])
        return loggers or False

    def after_fit(self) -> None:
        """Test the best epoch and show what the run found."""
        options = self.options.run
        if self.trainer.interrupted or self.options.trainer.fast_dev_run:
            return
        if options.test and not self._has_test_split():
            print("this data has no test split, so nothing is tested", flush=True)
        elif options.test:
            self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=self._tested(), verbose=False)
            if options.control:
                self.record.add_control(self.trainer, self.model)
        if options.test and self._has_test_split() and options.suite != "none":
            self._evaluate(options)
        self._show()

    def _evaluate(self, options: Namespace) -> None:
        """Run the suite on the first process; nothing in it talks to the others."""
        best = getattr(self.trainer.checkpoint_callback, "best_model_path", "")
        if not self.trainer.is_global_zero or not best or not hasattr(self.datamodule, "examples"):
            return
        plan = Plan(chosen_families(options.suite), chosen_explainers(options.suite_explainers))
        module = self.model.to(self.trainer.strategy.root_device)
        evaluated = EvaluatedModel(module, self.datamodule, file_digest(Path(best)), Path(best).stem)
        console = stdout_console()
        summary, folder = evaluate(
            evaluated,
            plan,
            EvaluationOptions(
                max_examples=options.suite_examples, linear=options.control, untrained=options.suite_untrained
            ),
            self.folder / "evaluation",
            console,
        )
        self.record.add_evaluation(self.trainer, module, summary.flat())
        print_summary(summary, console)
        print(f"evaluation: {folder}", flush=True)

    def _has_test_split(self) -> bool:
        manifest = getattr(self.datamodule, "manifest", None)
        return manifest is None or "test" in manifest["splits"]

    def _tested(self) -> str | None:
        """What is tested after the training: the best epoch, or the weights as they are where none was measured."""
        best: str | None = getattr(self.trainer.checkpoint_callback, "best_model_path", "") or None
        if best is None and self.trainer.is_global_zero:
            print(f"no epoch has {self.options.run.monitor}, the last weights are tested", flush=True)
        return best

    def after_validate(self) -> None:
        """Show the metrics and where they were written."""
        self._show()

    def after_test(self) -> None:
        """Show the metrics and where they were written."""
        self._show()

    def _show(self) -> None:
        if self.trainer.is_global_zero:
            print_results(self.folder, self.record.record)


def _rank() -> int:
    """This process's number among all; 0 if it is alone."""
    return int(getattr(rank_zero_only, "rank", 0) or 0)


def _csv_logger(folder: Path, resumed: Path | None) -> CSVLogger:
    """A logger on the run folder; Lightning's deletes an older `metrics.csv`, so a resumed run takes its rows over.

    Those of epochs after the checkpoint's own are left out, because they are run again.
    """
    path = folder / "metrics.csv"
    rows: list[dict[str, Any]] = []
    if resumed is not None and path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{key: value for key, value in row.items() if value != ""} for row in csv.DictReader(file)]
        epoch = read_checkpoint(resumed)["epoch"]
        rows = [row for row in rows if int(row.get("epoch", -1)) <= epoch]
    logger = CSVLogger(folder.parent.parent, name=folder.parent.name, version=folder.name)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Experiment logs directory")
        logger.experiment.metrics.extend(rows)
    return logger


def _wandb_logger(folder: Path, options: Namespace) -> Logger:
    return WandbLogger(
        project=options.wandb_project,
        name=f"{options.name}-{folder.name}",
        save_dir=folder,
        log_model=False,
    )


def _experiment_name(configs: list[Any] | None) -> str:
    return Path(str(configs[-1])).stem if configs else "run"


def training_command(arguments: Sequence[str]) -> int:
    """Run `fit`, `validate` or `test`.

    Args:
        arguments: the command and its options.

    Returns:
        0; errors are exceptions.
    """
    os.environ.pop(_FOLDER_VARIABLE, None) if "LOCAL_RANK" not in os.environ else None
    _quiet_libraries()
    show_messages(logging.INFO if _rank() == 0 else logging.WARNING)
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    print_cards(arguments)
    arguments = with_checkpoint_config(list(arguments))
    check_config_files(arguments)
    try:
        with class_change_resets_arguments():
            AttentionCLI(arguments)
    except SystemExit as error:
        # Lightning turns Ctrl-C into exit code 1.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise
    except MisconfigurationException as error:
        raise ConfigurationError(f"Expected options that work together, but Lightning says: {error}") from error
    return 0


def _quiet_libraries() -> None:
    """Hide advertisements and device listings; warnings about the user's own settings stay."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint need to be provided.*")
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")
    warnings.filterwarnings(
        "ignore", message=".*The number of training batches .* is smaller than the logging interval.*"
    )
