"""Progress bars of other packages: for people at a terminal, and not in logs and notebooks."""

import os
import sys


def no_bars_in_logs() -> None:
    """Switch the bars of `datasets` off where nobody watches them; to be called before that package is imported."""
    # It reads the variable when it is imported, and every redrawn bar would be a line of a log.
    if not sys.stderr.isatty():
        os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
