"""How all figures look, and how they become files: the same contents give the same bytes."""

import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from attn_lightning.errors import ConfigurationError
from attn_lightning.files import replacing

FloatArray = NDArray[np.floating[Any]]

COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#882255", "#999933", "#332288")
"""Told apart with the common kinds of colour blindness (Okabe and Ito 2008; the last three are Paul Tol's)."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
"""Classes and methods differ in shape too, so that no figure depends on colour."""

BACKGROUND = "#8C8C8C"
MISTAKE = "#000000"
MAP = "cividis"
"""Colour map of quantities: evenly rising lightness, the same for colour-blind readers."""

LONGEST_LABEL = 60
FORMATS = ("png", "svg")
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "savefig.dpi": 150,
    "svg.hashsalt": "attn_lightning",
}


def color(index: int) -> str:
    """Colour of a class or method by its place."""
    # A tenth class has the colour of the first, but never its marker.
    return COLORS[index % len(COLORS)]


def marker(index: int) -> str:
    """Marker of a class or method by its place; with the colour it repeats only after ninety."""
    return MARKERS[index % len(MARKERS)]


def handle(label: str, **appearance: Any) -> Line2D:
    """Entry of a legend that shows a marker without a line."""
    return Line2D([], [], **{"linestyle": "", "label": label, **appearance})


@contextmanager
def house_style() -> Iterator[None]:
    """Our settings and matplotlib's defaults, whatever the user's own are; around both drawing and writing."""
    # From the defaults and not from the user's own matplotlibrc: figures are the same on every machine.
    with matplotlib.style.context(["default", _STYLE]):
        yield


def plain(text: str, longest: int = LONGEST_LABEL) -> str:
    """A name from data or configuration, safe as a label.

    Control characters become spaces, dollar signs go (they would start a formula), a long name is cut, and one that
    starts with an underscore is moved, for matplotlib would leave it out of the legend.
    """
    kept = "".join(character if character.isprintable() else " " for character in text).replace("$", "")
    kept = kept if len(kept) <= longest else kept[: longest - 1] + "…"
    # matplotlib leaves labels that begin with an underscore out of a legend.
    return f" {kept}" if kept.startswith("_") else kept


def render(figure: Figure, kind: str) -> bytes:
    """The figure as a file: no dates, no versions, no random identifiers.

    Args:
        figure: made by one of the drawing functions of this room.
        kind: `png`, `svg` or `pdf`.
    """
    file = io.BytesIO()
    # Without dates and versions: the same data gives the same bytes, so that a repository shows no false changes.
    metadata = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }[kind]
    with house_style():
        figure.savefig(file, format=kind, metadata=metadata)
    return file.getvalue()


def write(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write every figure as PNG and as SVG; nothing is overwritten.

    A file that is there with the same contents is kept. If any is there with others, nothing is written at all.

    Args:
        figures: by name of the file.
        folder: made if need be.

    Returns:
        The files, written or kept.

    Raises:
        ConfigurationError: a file exists with other contents, or the folder cannot be written.
    """
    files = {folder / f"{name}.{kind}": render(figure, kind) for name, figure in figures.items() for kind in FORMATS}
    try:
        # All are checked before one is written: half of a new set beside half of an old one would be worse than an
        # error.
        _refuse_other_contents(files.items())
        folder.mkdir(parents=True, exist_ok=True)
        for path, contents in files.items():
            with replacing(path) as file:
                file.write(contents)
    except OSError as error:
        raise ConfigurationError(
            f"Expected to be able to write figures to {folder}, but got: {error}; choose another `--output`."
        ) from error
    return list(files)


def _refuse_other_contents(files: Iterable[tuple[Path, bytes]]) -> None:
    for path, contents in files:
        if path.exists() and path.read_bytes() != contents:
            raise ConfigurationError(
                f"Expected no other figure in the place of a new one, but {path} exists with other contents and is "
                "never overwritten; name another folder with `--output`, or remove it."
            )
