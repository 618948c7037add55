"""What a run does before its first step, without the run: whatever it would refuse is known before any cell is run."""

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser

from attn_lightning.commands.trainer import checkpoints
from attn_lightning.console import say
from attn_lightning.errors import AttnLightningError, ConfigurationError, own_cause
from attn_lightning.study.expansion import Cell
from attn_lightning.study.grouping import error_lines

_HERE = {
    "accelerator": "cpu",
    "devices": 1,
    "num_nodes": 1,
    "strategy": "auto",
    "logger": False,
    "plugins": None,
    "profiler": None,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,
}
"""Options of the trainer that depend on the machine, or only show something."""


class _Rehearsed(Exception):
    """The run has come to its first step."""


class _StopAtFirstStep(Callback):
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        raise _Rehearsed


@contextmanager
def _quietly() -> Iterator[None]:
    """Without Lightning's lines on devices, one of which would come with every run."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


class Rehearsal:
    """Runs of a study up to their first step, on this machine's processor.

    Data that is here is prepared, with word vectors where there is a pool; what is prepared stays in the cache, where
    the runs find it. Of data that would have to be downloaded, only the options are checked.

    Args:
        parser: of `fit`.
    """

    def __init__(self, parser: LightningArgumentParser) -> None:
        self._parser = parser
        self._data: dict[str, LightningDataModule | None] = {}

    def play(self, config: Namespace) -> bool:
        """Everything before the first step.

        Args:
            config: a parsed `fit`.

        Returns:
            Whether the data is here; without it nothing is known beyond the options.

        Raises:
            ConfigurationError: the run would be refused; says why.
        """
        try:
            data = self._prepared(config.data)
            if data is None:
                return False
            self._until_first_step(config, data)
        except (AttnLightningError, MisconfigurationException, ValueError) as error:
            raise ConfigurationError(str(own_cause(error) or error)) from error
        return True

    def _prepared(self, options: Namespace) -> LightningDataModule | None:
        key = json.dumps(options.as_dict(), sort_keys=True, default=str)
        if key not in self._data:
            # Kept: methods of one study share their data, which is made and read once for all of them.
            data: Any = self._parser.instantiate(Namespace(data=options)).data
            parts = [data, getattr(data, "unlabeled", None)]
            if any(getattr(getattr(part, "found", None), "kind", None) == "hub" for part in parts):
                data = None
            else:
                # A pool is read with them; without one they would only cost time here.
                data.makes_word_vectors = getattr(data, "unlabeled", None) is not None
                data.prepare_data()
            self._data[key] = data
        return self._data[key]

    def _until_first_step(self, config: Namespace, data: LightningDataModule) -> None:
        # Anew for each, as a run has them: a model or method that was used before may be in another state.
        made = self._parser.instantiate(Namespace(model=config.model, method=config.method))
        trainer_options = self._parser.instantiate(Namespace(trainer=config.trainer)).trainer.as_dict()
        callbacks = trainer_options["callbacks"] or []
        method = [] if made.method is None else [made.method]
        own = [*(callbacks if isinstance(callbacks, Sequence) else [callbacks]), *method]
        module: Any = made.model
        # All that the module does at the start, but for the states of a frozen encoder: they take a pass over the data.
        module.on_fit_start = module.check
        # Checkpoints need a folder, and a dry run leaves none behind.
        with tempfile.TemporaryDirectory() as folder:
            best = checkpoints(Path(folder), config.run.monitor, config.run.monitor_mode or "max", None)
            options = {**trainer_options, **_HERE, "callbacks": [_StopAtFirstStep(), *own, *best]}
            with suppress(_Rehearsed), _quietly():
                Trainer(**{**options, "default_root_dir": folder}).fit(module, data)


def rehearse(
    cells: Sequence[Cell], root: Path, rehearsal: Rehearsal, parse: Callable[[Sequence[str]], Namespace]
) -> None:
    """Play every cell that differs from the others in more than the seed, and say what could not be played.

    Args:
        cells: of a study.
        root: `run.root`.
        rehearsal: plays them.
        parse: from a command line to the options of `fit`.

    Raises:
        ConfigurationError: runs would be refused, all of them in one message.
    """
    refused: dict[str, str] = {}
    absent: dict[str, None] = {}
    based = [cell for cell in cells if cell.bases]
    played: set[str] = set()
    for cell in cells:
        # Of one that begins from another run there is no file yet to begin from.
        if cell.bases or cell.name in played:
            continue
        played.add(cell.name)
        try:
            if not rehearsal.play(parse(cell.arguments(root))):
                absent[cell.data] = None
        except ConfigurationError as error:
            refused[cell.name] = str(error)
    if refused:
        raise ConfigurationError(
            f"Expected runs that come to their first step, but got {len(refused)} that do not:\n{error_lines(refused)}"
        )
    if absent:
        say(f"# of {', '.join(absent)} only the options were checked: the data is not here yet")
    if based:
        say(f"# of runs that begin from another, such as {based[0].name}, only the options were checked")
