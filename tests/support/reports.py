"""A report of folders, as the command makes it."""

from collections.abc import Sequence
from pathlib import Path

from attn_lightning.report.page import DEFAULTS, ReportOptions, read_sources, write_page


def write_report(paths: Sequence[Path], output: Path, options: ReportOptions = DEFAULTS) -> Path:
    return write_page(read_sources(paths), output, options)
