"""The data of many runs, prepared once before the first of them: what none of them could read is said once."""

import json
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from attn_lightning.errors import AttnLightningError, ConfigurationError, own_cause
from attn_lightning.study.expansion import Cell
from attn_lightning.study.grouping import error_lines


class Preparation:
    """Prepares data as a run would, and remembers what cannot be.

    Runs find it in the cache, so the time is spent once in any case. Word vectors are left to the runs, which draw them
    with their own seeds; only a pool of other data is read together with them.

    Args:
        parser: of `fit`.
    """

    def __init__(self, parser: LightningArgumentParser) -> None:
        self._parser = parser
        self._refusals: dict[Hashable, str | None] = {}

    def refusal(self, options: Namespace) -> str | None:
        """Why data cannot be read or made.

        Args:
            options: `data` of a parsed `fit`.

        Returns:
            The message of the error; None if the data is ready, or of a class that fails in a way of its own, which its
            runs will say better.
        """
        same_options = json.dumps(options.as_dict(), sort_keys=True, default=str)
        if same_options not in self._refusals:
            try:
                self._refusals[same_options] = self._tried(options)
            except (AttnLightningError, OSError) as error:
                self._refusals[same_options] = str(error)
            except ValueError as error:
                if (cause := own_cause(error)) is None:
                    raise
                self._refusals[same_options] = str(cause)
        return self._refusals[same_options]

    def _tried(self, options: Namespace) -> str | None:
        data: Any = self._parser.instantiate(Namespace(data=options)).data
        pool = getattr(data, "unlabeled", None)
        foreign = pool is not None and not isinstance(pool, str)
        # Options such as the share of labels make no other files: a hub that does not answer is asked once for them
        # all. Data of a class elsewhere has no digest.
        key = None if foreign else getattr(data, "digest", None)
        if key is not None and key in self._refusals:
            return self._refusals[key]
        data.makes_word_vectors = foreign
        try:
            data.prepare_data()
        except (AttnLightningError, OSError) as error:
            if key is not None:
                self._refusals[key] = str(error)
            raise
        return None


def cells_without_data(
    cells: Sequence[Cell], root: Path, preparation: Preparation, parse: Callable[[Sequence[str]], Namespace]
) -> dict[Cell, str]:
    """The cells that cannot run because their data cannot be read, each with the reason.

    Args:
        cells: those that are to be run.
        root: `run.root`.
        preparation: prepares data.
        parse: from a command line to the options of `fit`.

    Raises:
        ConfigurationError: none of them can run.
    """
    refusals: dict[str, str | None] = {}
    for cell in cells:
        # Seeds differ in nothing that is read.
        if cell.name not in refusals:
            refusals[cell.name] = preparation.refusal(parse(cell.arguments(root)).data)
    without = {cell: error for cell in cells if (error := refusals[cell.name]) is not None}
    if without and len(without) == len(cells):
        messages = dict.fromkeys(without.values())
        if len(messages) == 1:
            raise ConfigurationError(f"{next(iter(messages))} No cell was run: all {len(cells)} need it.")
        raise ConfigurationError(
            f"Expected data that can be read, but none of {len(messages)} can, so no cell was run:\n"
            f"{error_lines({str(cell): error for cell, error in without.items()})}"
        )
    return without


def check_data(commands: Iterable[Namespace], preparation: Preparation, tell: Callable[[str], None]) -> None:
    """Prepare the data of commands that differ in a few options, and say what cannot be.

    Args:
        commands: parsed options of `fit`.
        preparation: prepares data.
        tell: shows a line.

    Raises:
        ConfigurationError: no command has data that can be read.
    """
    refusals = [preparation.refusal(options.data) for options in commands]
    messages = list(dict.fromkeys(message for message in refusals if message is not None))
    if messages and None not in refusals:
        raise ConfigurationError("\n".join(messages))
    for message in messages:
        tell(f"some trials cannot run: {message}")
