"""Options of the commands that need no torch to be read: a mistake in them is answered at once, in one line."""

import argparse
from typing import Any, NoReturn

from attn_lightning.errors import ConfigurationError


class OneLineArguments(argparse.ArgumentParser):
    """Reports a mistake in the options as one line, as all commands do.

    Args:
        command: its name.
        **options: of `argparse.ArgumentParser`.
    """

    def __init__(self, command: str, **options: Any) -> None:
        # Abbreviations would make an option of a later version change what an older command line means.
        super().__init__(prog=f"python -m attn_lightning {command}", allow_abbrev=False, **options)
        self.command = command

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing pages of usage."""
        raise ConfigurationError(f"{message}; run `{self.command} --help` for the options.")
