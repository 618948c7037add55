"""`report`: runs and studies as one HTML page, with tables for a paper and figures beside it."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from attn_lightning.commands.one_line import OneLineArguments
from attn_lightning.console import say
from attn_lightning.errors import AttnLightningError
from attn_lightning.study.configuration import full_metric
from attn_lightning.study.own import names_between_commas

FOLDER = "report"


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = OneLineArguments(
        "report",
        description="Make one self-contained page of runs and studies: key numbers beside controls, the documents with "
        "what the model looks at, two runs side by side, the tables and charts of studies. It reads run folders alone, "
        "and what it cannot read becomes a note on the page.",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="RUN_OR_STUDY",
        help="folder of a run, of a study, or of several runs; or a study by name or file, whose folder is in `--root`",
    )
    parser.add_argument(
        "--output", type=Path, help="folder of the page (default: `report` in the folder, or here if there are several)"
    )
    parser.add_argument("--root", type=Path, default=Path("runs"), help="folder of all runs (default: runs)")
    parser.add_argument(
        "--documents",
        type=int,
        default=20_000,
        help="documents per run at the most (default: 20000); 0 leaves them out",
    )
    parser.add_argument(
        "--metrics",
        default="",
        help="of the tables for a paper, separated by commas (default: a study's own, key numbers)",
    )
    parser.add_argument(
        "--style",
        default="sd",
        help="behind a mean of these tables: `sd` (default), `interval` (95 %%) or `mean` alone",
    )
    parser.add_argument(
        "--figures", action=argparse.BooleanOptionalAction, default=True, help="draw figures as files too"
    )
    return parser.parse_args(arguments)


def report_command(arguments: Sequence[str]) -> int:
    """Run `report`.

    Args:
        arguments: its options.

    Returns:
        0 if everything that was named could be read, else 1; the page is made of the rest.
    """
    options = _options(arguments)
    # This loads torch, which a mistake in the options should not have to wait for.
    from attn_lightning.report.page import ReportOptions, read_sources, write_page

    names = names_between_commas("--metrics", options.metrics) if options.metrics else []
    metrics = tuple(dict.fromkeys(map(full_metric, names)))
    paths = [folder_of(name, options.root) for name in options.paths]
    sources = read_sources(paths)
    # Counted here: what comes later, such as a figure without data, is no reason to fail.
    unread = len(sources.notes)
    chosen = ReportOptions(
        documents=options.documents,
        metrics=metrics,
        style=options.style,
        figures=options.figures,
    )
    # Beside the run where there is one alone; several have no common place but the current folder.
    output = options.output or (paths[0] / FOLDER if len(paths) == 1 else Path(FOLDER))
    page = write_page(sources, output, chosen)
    # A file that cannot be read may be missed in several places.
    for note in dict.fromkeys(sources.notes):
        say(f"note: {note}")
    say(f"report: {page}")
    return 1 if unread else 0


def report_in_place(folder: Path, figures: bool) -> None:
    """Write the report of a run or a study into its folder, and print where it is.

    What makes a report impossible is one line: it must not take the results of a long run with it.

    Args:
        folder: of the run or the study.
        figures: draw figures as files too, which takes longer than the page.
    """
    # Loaded here because a run without a report should not wait for it.
    from attn_lightning.report.page import ReportOptions, read_sources, write_page

    try:
        sources = read_sources([folder])
        page = write_page(sources, folder / FOLDER, ReportOptions(figures=figures))
    except AttnLightningError as error:
        say(f"no report: {error}")
        return
    # A file that cannot be read may be missed in several places.
    for note in dict.fromkeys(sources.notes):
        say(f"note: {note}")
    say(f"report: {page}")


def folder_of(name: str, root: Path) -> Path:
    """The folder of a run or a study; a study may be given by its name or its file.

    Args:
        name: a path, or the name of a study.
        root: folder of all runs.
    """
    path = Path(name)
    if path.is_dir():
        return path
    study = root / path.stem
    if (path.suffix in (".yaml", ".yml") or path.parent == Path()) and study.is_dir():
        return study
    return path
