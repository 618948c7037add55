"""`claims`: what papers say, held against the archives of studies; a table and a figure."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from attn_lightning.commands.one_line import OneLineArguments
from attn_lightning.console import literal, say, stdout_console
from attn_lightning.errors import ConfigurationError
from attn_lightning.experiments import FOLDER
from attn_lightning.files import replacing
from attn_lightning.report.claims import Finding, findings, markdown, read_claims
from attn_lightning.study.publishing import publish, read

_SECTION = "claims"
_KINDS = (".svg", ".png", ".pdf")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = OneLineArguments(
        "claims",
        description="Hold claims against the numbers of studies: each is a difference between two methods of a study, "
        "and its verdict follows from the 95 % interval over seeds. It reads what `study --archive` wrote.",
    )
    parser.add_argument(
        "claims",
        nargs="?",
        type=Path,
        default=FOLDER / "results" / "claims.yaml",
        help="a YAML file with `claims`; experiments/results/claims.yaml, which is taken without one, shows the keys",
    )
    parser.add_argument("--archives", type=Path, help="folder of STUDY.jsonl.gz (default: that of the file of claims)")
    parser.add_argument(
        "--publish",
        type=Path,
        metavar="FILE",
        help="put the table into a Markdown file: between `<!-- study claims -->` and `<!-- end -->`, or at its end",
    )
    parser.add_argument("--figure", type=Path, metavar="FILE.svg", help="draw those that were run; it is replaced")
    return parser.parse_args(arguments)


def claims_command(arguments: Sequence[str]) -> int:
    """Run `claims`.

    Args:
        arguments: its options.

    Returns:
        0; errors are exceptions.
    """
    options = _options(arguments)
    if options.figure is not None and (options.figure.suffix not in _KINDS or not options.figure.parent.is_dir()):
        raise ConfigurationError(
            f"Expected `--figure` to be a file ending in {', '.join(_KINDS)} in a folder that exists, but got "
            f"{options.figure}; name another one."
        )
    if options.publish is not None:
        read(options.publish, _SECTION)
    claims = read_claims(options.claims)
    # This loads torch, which a mistake in the file of claims should not have to wait for.
    from attn_lightning.commands.validation import shared_validator

    found = findings(claims, options.archives or options.claims.parent, shared_validator().parse)
    stdout_console().print(_terminal(found))
    if options.publish is not None:
        publish(options.publish, _SECTION, markdown(found))
        say(f"published: {options.publish}")
    if options.figure is not None:
        _draw(found, options.figure)
    return 0


def _terminal(found: Sequence[Finding]) -> Table:
    table = Table(title="Claims", title_justify="left")
    for name in ("claim", "on", "seeds", "difference", "verdict"):
        table.add_column(name, overflow="fold")
    for each in found:
        cells = (each.claim.claim, each.claim.on, each.seeds, each.difference, f"{each.verdict}: {each.why}")
        table.add_row(*map(literal, cells))
    return table


def _draw(found: Sequence[Finding], path: Path) -> None:
    # matplotlib takes a second to load, which the table alone should not wait for.
    from attn_lightning.report.claim_drawings import claims_figure
    from attn_lightning.report.style import render

    compared = [each for each in found if each.is_compared]
    if not compared:
        raise ConfigurationError("Expected claims with two seeds, but there are none to draw; run their studies first.")
    contents = render(claims_figure(compared, "What papers claim, and what comes out here"), path.suffix[1:])
    with replacing(path) as file:
        file.write(contents)
    say(f"figure: {path}")
