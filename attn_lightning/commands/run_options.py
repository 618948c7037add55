"""The options of a run beside model, method, data and trainer, and the file that keeps all of them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from attn_lightning import run_folder
from attn_lightning.commands.wandb_run import upload_configuration
from attn_lightning.evaluation.catalog import FAST_EXPLAINERS
from attn_lightning.files import write_text


@dataclass(frozen=True)
class RunOptions:
    """Where a run is kept and what happens around the training.

    Args:
        root: folder of all runs.
        name: name of the experiment; that of the last `--config` by default.
        version: name of this run's own folder; the next free `version_<k>` by default. Never overwritten.
        resume: auto continues the unfinished run of this name and configuration, says so if it is complete, and starts
            one if there is none, so that the same command can be given again and again; `never` always starts a run.
        test: test the best epoch after the training.
        control: measure a TF-IDF logistic regression on the same data beside it (text only).
        suite: what is measured on the test split after the training, as `evaluate --suite` takes it, beside
            uninformative explanations; `none` measures nothing more.
        suite_untrained: measure an untrained model beside it, which takes as long again.
        suite_examples: size of a random subset of the test examples for the suite; null takes all.
        suite_explainers: the explanations that are judged, as `evaluate --explainers` takes them.
        monitor: the validation metric that decides which epoch is kept: `val/accuracy`, `val/log_loss`, ...;
            `train/loss`; `epoch` keeps the last.
        monitor_mode: whether more of it is better (max) or less (min); as declared for the metric by default.
        report: write the page `report/report.html` into the run folder at the end, from what the run has recorded.
        verbose: print all tables of the suite and a line for each of its parts; `--verbose` says the same.
        wandb: also log to Weights & Biases; `WANDB_MODE=offline` needs no account and no network.
        wandb_project: its project.
        wandb_entity: user or team that the project belongs to; None: your own.
        wandb_group: group of the run, which the web page folds into one line.
        wandb_tags: words to filter runs by.
        wandb_name: name of the run there; `<name>-<version>` by default.
    """

    root: Path = Path("runs")
    name: str | None = None
    version: str | None = None
    resume: Literal["never", "auto"] = "never"
    test: bool = True
    control: bool = True
    suite: str = "fast"
    suite_untrained: bool = True
    suite_examples: int | None = 500
    suite_explainers: str = FAST_EXPLAINERS
    monitor: str = "val/accuracy"
    monitor_mode: Literal["max", "min"] | None = None
    report: bool = True
    verbose: bool = False
    wandb: bool = False
    wandb_project: str = "attn_lightning"
    wandb_entity: str | None = None
    wandb_group: str | None = None
    wandb_tags: list[str] = field(default_factory=list)
    wandb_name: str | None = None


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
        # A copy: the run itself goes on with the checkpoint that is taken out here.
        config = self.config.clone()
        config.pop("ckpt_path", None)
        config.run.resume = "never"  # the file is there to repeat the run
        # In one step: half a configuration would be one of another run, which nobody goes on with.
        write_text(self._free_path(), self.parser.dump(config, skip_unset=False))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                contents = yaml.safe_load(self.parser.dump(config, skip_unset=False))
                upload_configuration(logger, contents)

    def _free_path(self) -> Path:
        path, number = self.folder / run_folder.CONFIG, 0
        # The first configuration stays as it was: it is what a later command is compared with.
        while path.exists():
            number += 1
            path = run_folder.resumed_config(self.folder, number)
        return path
