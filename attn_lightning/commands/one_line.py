"""Options of the commands that need no torch to be read: a mistake in them is answered at once, in one line."""

import argparse
from typing import NoReturn

from attn_lightning.errors import ConfigurationError


class OneLineArguments(argparse.ArgumentParser):
    """Reports a mistake in the options as one line, as all commands do. Its `prog` ends with the command's name."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing pages of usage."""
        command = self.prog.rpartition(" ")[2]
        raise ConfigurationError(f"{message}; run `{command} --help` for the options.")
