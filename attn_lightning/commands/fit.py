"""`fit`, `validate` and `test`: LightningCLI with a method slot, run folders and errors in one line."""

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import WandbLogger

from attn_lightning import run_folder
from attn_lightning.callbacks.run_record import RunRecord
from attn_lightning.commands.after_fit import AfterFit, leave_group
from attn_lightning.commands.arguments import (
    experiment_name,
    prepared,
    spelled_out,
    split_trusted,
    with_checkpoint_config,
)
from attn_lightning.commands.bars import no_bars_in_logs
from attn_lightning.commands.letters import keep_words_for_letters
from attn_lightning.commands.lost_process import Watch, watched
from attn_lightning.commands.parsing import OneLineErrorParser, class_change_resets_arguments, print_cards
from attn_lightning.commands.processes import Agreement, Decision, is_first, place
from attn_lightning.commands.run_choice import RunChoice, choose
from attn_lightning.commands.run_options import RunConfig, RunOptions
from attn_lightning.commands.same_run import SameRun, differing, revisions_now
from attn_lightning.commands.slurm import requeued_in_time
from attn_lightning.commands.trainer import check_trainer_options, checkpoints, loggers, plugins, run_callbacks
from attn_lightning.commands.wandb_run import name_by_sweep, sweep_of_agent
from attn_lightning.console import say, show_messages
from attn_lightning.errors import ConfigurationError, one_line, own_cause
from attn_lightning.evaluation.catalog import chosen_explainers, chosen_families
from attn_lightning.evaluation.naming import monitor_mode, monitored
from attn_lightning.evaluation.results import print_results
from attn_lightning.methods.base import Method
from attn_lightning.module import AttentionModule

_TRUST = "A model of your own is named beside it: `--trust my_model.MyModel`."

_HEADS = {
    "fit": (
        "fit --config METHOD_DATA",
        "Train, keep the best epoch, test it and leave a complete run folder. The other options change the experiment "
        "that `--config` names, in any order.",
    ),
    "validate": ("validate --ckpt_path FILE", f"Measure a checkpoint on the validation split. {_TRUST}"),
    "test": ("test --ckpt_path FILE", f"Measure a checkpoint on the test split. {_TRUST}"),
}
"""What the help of each command opens with."""


class NothingToDo(Exception):
    """The run that was asked for is complete.

    Attributes:
        folder: where it is.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.folder = folder


class AttentionCLI(LightningCLI):
    """LightningCLI with the `method` slot and one folder per run."""

    agreement: Agreement | None = None
    choice: RunChoice | None = None
    record: RunRecord

    def __init__(self, arguments: Sequence[str], name: str = "run", watch: Watch | None = None) -> None:
        self.name = name
        # Before the base class, whose constructor parses, trains and tests: nothing can be set after it.
        self.watch = watch or Watch()
        try:
            super().__init__(
                AttentionModule,
                LightningDataModule,
                subclass_mode_data=True,
                save_config_callback=RunConfig,
                parser_class=OneLineErrorParser,
                # The module makes its optimizer; Lightning's own options for one would be ignored beside it.
                auto_configure_optimizers=False,
                seed_everything_default=0,
                args=list(arguments),
            )
        # Of `BaseException`: Ctrl-C must end the run at W&B too, or it is shown as running for ever.
        except BaseException as error:
            self._close_wandb(exit_code=1)
            explained = self.watch.explained(error)
            if explained is not error:
                raise explained from None
            raise
        finally:
            if self.agreement is not None:
                self.agreement.close()
            if self.choice is not None:
                self.choice.release()
        self._close_wandb(exit_code=0)

    def _close_wandb(self, exit_code: int) -> None:
        """End the W&B run: a later one in the same process would silently go on with it."""
        trainer = getattr(self, "trainer", None)
        # Asked of the loggers and not of wandb, whose import takes a second that most runs need not spend.
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
        parser = self.parser_class(allow_abbrev=False, **kwargs)
        parser.add_argument(
            "-c",
            "--config",
            action="config",
            help="An experiment, METHOD_DATA such as ivat_imdb (`python -m attn_lightning experiments` lists them), or "
            "the path of a YAML file. Of several the later one wins.",
        )
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the method slot and the run options."""
        parser.add_subclass_arguments(Method, "method", required=False)
        parser.add_class_arguments(RunOptions, "run")
        assert parser.groups is not None
        parser.groups["run"].description = f"What can be monitored, and which is better: {', '.join(monitored())}"
        # Training from the first second: a model summary and a rehearsal of the validation help nobody here.
        parser.set_defaults(
            {"trainer.max_epochs": 8, "trainer.num_sanity_val_steps": 0, "trainer.enable_model_summary": False}
        )

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Our table is printed instead of Lightning's."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        assert isinstance(parser, OneLineErrorParser)
        parser.name_groups(*_HEADS[subcommand])
        if subcommand != "fit":
            parser.set_defaults({"verbose": False})
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse without the base class's warning, which is about notebooks."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """The configuration beside the checkpoint was read already, so nothing is silently overridden."""

    @property
    def options(self) -> Namespace:
        """The parsed configuration of the subcommand."""
        options: Namespace = self.config[self.config.subcommand]
        return options

    def before_instantiate_classes(self) -> None:
        """Find or make the run folder before anything can write."""
        name_by_sweep(self.options.run)
        self.options.run.name = self.options.run.name or self.name
        # Only for their errors: a misspelled family would otherwise be found after the training.
        if self.options.run.suite != "none":
            chosen_families(self.options.run.suite)
            chosen_explainers(self.options.run.suite_explainers)
        if self.config.subcommand == "fit":
            # Written down, so that the configuration of a run says how its best epoch was chosen.
            self.options.run.monitor_mode = monitor_mode(self.options.run.monitor, self.options.run.monitor_mode)
        # Before the folder is made: a refused command leaves nothing behind.
        check_trainer_options(self.options.trainer)
        keep_words_for_letters(self.options)
        if self.config.subcommand != "fit" and len(self.options.config or []) > 1 and self.options.ckpt_path:
            self._check_model(Path(self.options.ckpt_path))
        self._choose()
        assert self.choice is not None
        if self.choice.complete:
            raise NothingToDo(self.choice.folder)
        if self.choice.resumed is not None:
            self.options.ckpt_path = str(self.choice.resumed)
        # Lightning makes the callback that writes the configuration, and this is what it makes it with.
        self.save_config_kwargs = {"folder": self.choice.folder}
        if not sys.stdout.isatty() and self.options.trainer.enable_progress_bar is None:
            # A bar redrawn thousands of times is useless in a log file; the line per epoch stays.
            self.options.trainer.enable_progress_bar = False

    def _check_model(self, checkpoint: Path) -> None:
        """Refuse another model than that of a checkpoint in its run folder, from a further `--config`.

        A normalizer, say, has no weights that could be missed: another one would be measured in silence.
        """
        if (path := run_folder.newest_config(run_folder.of_checkpoint(checkpoint))) is None:
            return  # moved out of its run, whose configuration is what is given
        command = self.config.subcommand
        own = self.parser.parse_args([command, "--config", str(path)])[command]
        if found := differing(own.model.as_dict(), self.options.model.as_dict(), "model"):
            raise ConfigurationError(
                f"Expected the model of the checkpoint, but `--config` says something else of {', '.join(found[:5])}; "
                "leave it out: the configuration of a run is read by itself."
            )

    def _choose(self) -> None:
        """Agree with the other processes of this job on a run folder."""

        def decide() -> Decision:
            self.choice = choose(self.config.subcommand, self.options, self._same_run())
            return self.choice.decision()

        self.agreement = Agreement(place(self.options.trainer))
        decision = self.agreement.reach(decide)
        # Another process of the job has decided; this one takes its word for the folder.
        if self.choice is None:
            self.choice = RunChoice.of(decision)

    def _same_run(self) -> SameRun:
        parser = self._parser(self.config.subcommand)

        def plain(options: Namespace) -> dict[str, Any]:
            contents: dict[str, Any] = yaml.safe_load(parser.dump(options, skip_unset=False))
            return contents

        def parse(path: Path) -> dict[str, Any]:
            return plain(self.parser.parse_args(["fit", "--config", str(path)]).fit)

        return SameRun(lambda: plain(self.options), parse, lambda: revisions_now(parser, self.options))

    def instantiate_classes(self) -> None:
        """Show what a class says of its arguments, not jsonargparse's list of all types that were tried."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            if (cause := own_cause(error)) is not None:
                raise cause from None
            raise

    def after_instantiate_classes(self) -> None:
        """Testing a checkpoint on a new machine must not train word vectors first."""
        if self.config.subcommand != "fit" and hasattr(self.datamodule, "makes_word_vectors"):
            self.datamodule.makes_word_vectors = False

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Add the method, the run record, checkpoints and loggers to what the configuration asks for."""
        assert self.choice is not None
        run = self.options.run
        fits = self.config.subcommand == "fit"
        # A fast development run is one batch: its record must not be taken for that of a run.
        asked = run_folder.asked(run) if fits and not config["fast_dev_run"] else {}
        self.record = RunRecord(self.choice.folder, run.name, asked, self.watch.explained)
        if (started := sweep_of_agent()) is not None:
            self.record.record["sweep"] = dict(zip(("id", "run"), started, strict=True))
        method = self._get(self.config_init, "method")
        # Only a training has methods: in `test` they would load base models and check schedules for nothing.
        if fits and method is not None:
            callbacks.append(method)
        callbacks.extend(run_callbacks(self.record))
        if fits and config["enable_checkpointing"] is not False and not config["fast_dev_run"]:
            every = config["check_val_every_n_epoch"]
            own = checkpoints(self.choice.folder, run.monitor, run.monitor_mode, every)
            given = config["callbacks"] or []
            # Before those of the configuration: Lightning calls the first one the checkpoint callback, whose best epoch
            # is tested and recorded.
            config["callbacks"] = [*own, *(given if isinstance(given, list) else [given])]
        if not fits:
            config["enable_checkpointing"] = False
        config = {
            **config,
            "logger": loggers(config["logger"], self.choice, run, fits),
            "plugins": plugins(config["plugins"]),
            # Whatever writes beside the run folder by default (profilers, Lightning's own logs) writes into it.
            "default_root_dir": self.choice.folder,
        }
        # Our batch samplers deal out the examples themselves, in buckets of similar length.
        config["use_distributed_sampler"] = False
        try:
            return super()._instantiate_trainer(config, callbacks)
        # A RuntimeError is what two checkpoints that follow the same metric end in.
        except (ValueError, RuntimeError) as error:
            raise ConfigurationError(
                f"Expected options that Lightning's Trainer takes, but got: {one_line(error)}"
            ) from error

    def after_fit(self) -> None:
        """Test the best epoch and show what the run found."""
        # After Ctrl-C the run is to be gone on with, and a test now would be one of half a training.
        if self.trainer.interrupted or self.options.trainer.fast_dev_run:
            return
        AfterFit(self.trainer, self.model, self.datamodule, self.record, self.options.run).run()

    def after_validate(self) -> None:
        """Show the metrics and where they were written."""
        self._show()

    def after_test(self) -> None:
        """Show the metrics and where they were written."""
        self._show()

    def _show(self) -> None:
        # A later command in the same program would wait for the others wherever it computes a metric.
        leave_group()
        if self.trainer.is_global_zero:
            print_results(self.record.folder, self.record.record)


def training_command(arguments: Sequence[str]) -> int:
    """Run `fit`, `validate` or `test`.

    Args:
        arguments: the command and its options.

    Returns:
        0; errors are exceptions.
    """
    _quiet_libraries()
    show_messages(logging.INFO if is_first() else logging.WARNING)
    no_bars_in_logs()
    print_cards(arguments)
    arguments, trusted = split_trusted(arguments)
    arguments = with_checkpoint_config(spelled_out(arguments), trusted)
    name, arguments = experiment_name(arguments), prepared(arguments)
    try:
        with class_change_resets_arguments(), requeued_in_time(), watched() as watch:
            _run(arguments, name, watch)
    except NothingToDo as found:
        say(f"nothing to do: {found.folder} is complete")
    except MisconfigurationException as error:
        # One line for the user: Lightning's own message says which options, and the traceback only says where.
        raise ConfigurationError(
            f"Expected options that work together, but Lightning says: {one_line(error)}"
        ) from error
    return 0


def _run(arguments: Sequence[str], name: str, watch: Watch) -> None:
    try:
        AttentionCLI(arguments, name, watch)
    except SystemExit as error:
        # Lightning turns Ctrl-C into exit code 1.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise


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
