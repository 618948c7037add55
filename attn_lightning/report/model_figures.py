"""The figures of a trained model: what is measured for them, and which of them a data set allows."""

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from attn_lightning.backbone.protocol import Backbone
from attn_lightning.errors import ConfigurationError, NumericalError
from attn_lightning.evaluation.families.plausibility import lacks_rationales, marked_tokens
from attn_lightning.evaluation.subject import Subject, on_device
from attn_lightning.methods.selective import single_logits
from attn_lightning.metrics.per_example import to_array
from attn_lightning.metrics.plausibility import rationale_mass
from attn_lightning.metrics.selective import OUTCOMES, outcomes
from attn_lightning.numerics import at_least_float32
from attn_lightning.report.model_drawings import (
    Field,
    ImageMosaic,
    PlaneMosaics,
    decision_regions,
    evidence_density,
    mosaic_grid,
)
from attn_lightning.report.style import FloatArray
from attn_lightning.types import UNLABELED

RESOLUTION = 200
"""Places per axis at which the model is asked."""

PLANE_MOSAICS = 200
"""Mosaics whose segments are scattered; more would cover the regions."""

MOSAICS_PER_OUTCOME = 3
_MARGIN = 0.08


@dataclass(frozen=True)
class Readings:
    """How much every example of a split depends on its rationale; NaN where undefined.

    Attributes:
        weights: (N,) attention on the rationale.
        probabilities: (N,) of the true class.
        outcomes: (N, 4) as `metrics.selective.outcomes`.
    """

    weights: FloatArray
    probabilities: FloatArray
    outcomes: FloatArray

    @property
    def rates(self) -> str:
        """Accuracy and rate of the first outcome, for a title."""
        known = self.outcomes[~np.isnan(self.outcomes).any(1)]
        if not len(known):
            return "no example has a rationale and a label"
        ftpt, ffpt = known[:, :2].mean(0)
        return f"accuracy {ftpt + ffpt:.3f}, FTPT {ftpt:.3f}, {len(known):,} examples"


@torch.inference_mode()
def read(subject: Subject) -> Readings:
    """One clean pass over data with rationales, in eval mode.

    Raises:
        NumericalError: a prediction is not finite.
        DataFormatError: a rationale has another length than its text; names the row.
    """
    count = len(subject.examples)
    # NaN and not zero where nothing is known: a text without rationale has no attention on it, rather than none.
    weights, probabilities = np.full(count, np.nan), np.full(count, np.nan)
    of_all = np.full((count, len(OUTCOMES)), np.nan)
    for batch in subject.batches():
        output = subject.model(batch.tokens, batch.mask)
        # In double precision, so that a sure model is not drawn at exactly 1.
        of_classes, attention = to_array(output.logits.double().softmax(-1)), to_array(output.attention)
        labels, mask, rows = (to_array(value) for value in (batch.labels, batch.mask, batch.rows))
        damaged = rows[~np.isfinite(of_classes).all(1)]
        if len(damaged):
            raise NumericalError(
                f"Expected finite predictions, but got NaN or infinity, in row {damaged[0]} for one; use another "
                "checkpoint."
            )
        marked = marked_tokens(batch)
        weights[rows] = rationale_mass(attention, marked, mask)
        # -1 stands for no label and is replaced below; as an index it would mean the last class.
        true = of_classes[np.arange(len(rows)), labels.clip(0)]
        probabilities[rows] = np.where(labels == UNLABELED, np.nan, true)
        of_all[rows] = outcomes(attention, marked, mask, of_classes.argmax(1), labels)
    return Readings(weights, probabilities, of_all)


@torch.inference_mode()
def field(
    model: Backbone,
    low: FloatArray,
    high: FloatArray,
    resolution: int = RESOLUTION,
    token_budget: int = 2**16,
    device: torch.device | None = None,
) -> Field:
    """Ask a model of points in the plane about mosaics of one segment, over a grid.

    At every place x the focus is `score(encode(embed(x)))`, and the classifier what `attend` makes of that one state
    with all attention on it: `g(x)` at layer 0, `g(tanh(z(x)))` above.

    Args:
        model: in eval mode.
        low: (2,) lowest coordinates of the grid.
        high: (2,) highest.
        resolution: places per axis, at least 2.
        token_budget: the most segments of a pass.
        device: where the model is; the CPU by default.
    """
    x, y = (np.linspace(low[axis], high[axis], resolution) for axis in (0, 1))
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 1, 2).astype(np.float32)
    scores, probabilities = [], []
    # Each place of the grid is a mosaic of one segment, which is what the classifier's map asks about.
    for part in torch.from_numpy(points).split(token_budget):
        segments = part.to(device or torch.device("cpu"))
        mask = torch.ones(segments.shape[:2], dtype=torch.bool, device=segments.device)
        hidden = at_least_float32(model.encode(model.embed(segments), mask))
        of_part = model.score(hidden, mask)
        scores.append(to_array(of_part[:, 0]))
        probabilities.append(to_array(single_logits(model, hidden[:, 0], of_part[:, 0]).softmax(-1)))
    shape = (resolution, resolution)
    return Field(x, y, np.concatenate(scores).reshape(shape), np.concatenate(probabilities).reshape(*shape, -1))


def segment_shape(subject: Subject) -> tuple[int, ...]:
    """Shape of a segment; () for words."""
    return tuple(subject.examples[[0]].tokens.shape[2:])


def model_figures(subject: Subject, names: tuple[str, ...], title: str) -> tuple[dict[str, Figure], dict[str, str]]:
    """All figures that the data allows.

    Args:
        subject: the model and the examples.
        names: of the classes.
        title: what model and data these are.

    Returns:
        Figures by name, and for the others the reason why there are none.

    Raises:
        ConfigurationError: there is no figure to draw at all.
    """
    if not len(subject.examples):
        raise ConfigurationError("Expected examples to draw figures of, but got a split without any; use another.")
    shape, lacking = segment_shape(subject), lacks_rationales(subject)
    if lacking is not None:
        raise ConfigurationError(
            f"Expected data with rationales (mosaics, planted or marked text) to draw figures of, but {lacking}; name "
            "other data with `--data`."
        )
    readings = read(subject)
    # The rates stand over every figure: a single mosaic shows how attention can lie, not how often it does.
    title = f"{title}: {readings.rates}"
    figures = {"density": evidence_density(readings.weights, readings.probabilities, readings.outcomes, title)}
    reasons = {}
    if shape == (2,):
        figures["regions"] = _regions(subject, names, title)
    else:
        reasons["regions"] = f"segments are {_kind(shape)}, not points of the plane"
    if len(shape) == 3 and shape[0] in (1, 3):
        figures["mosaics"] = _mosaics(subject, readings, names, title)
    else:
        reasons["mosaics"] = f"segments are {_kind(shape)}, not images"
    return figures, reasons


def _kind(shape: tuple[int, ...]) -> str:
    return f"of shape {' x '.join(map(str, shape))}" if shape else "words"


@torch.inference_mode()
def _regions(subject: Subject, names: tuple[str, ...], title: str) -> Figure:
    # The first ones and no random choice: the figure of a second call is the same.
    rows = list(range(min(PLANE_MOSAICS, len(subject.examples))))
    batch = on_device(subject.examples[rows], subject.device)
    output = subject.model(batch.tokens, batch.mask)
    points = to_array(batch.tokens)
    low, high = points.min((0, 1)), points.max((0, 1))
    # At least a little, or points on one line would leave a plane without height.
    margin = np.maximum(_MARGIN * (high - low), 1e-3)
    # At layer 0 what is averaged are the points themselves, so that the average is a place in the plane too.
    in_plane = output.hidden.shape == batch.tokens.shape and torch.equal(output.hidden, batch.tokens)
    mosaics = PlaneMosaics(
        points=points,
        attention=to_array(output.attention),
        foreground=marked_tokens(batch),
        labels=to_array(batch.labels),
        averages=to_array(output.context) if in_plane else None,
    )
    # Over the range of the segments: far from them the model was never trained, and its map would mislead.
    asked = field(subject.model, low - margin, high + margin, token_budget=subject.token_budget, device=subject.device)
    return decision_regions(asked, mosaics, names, f"{title}; shown: segments of {len(rows):,}")


@torch.inference_mode()
def _mosaics(subject: Subject, readings: Readings, names: tuple[str, ...], title: str) -> Figure:
    columns = {}
    for place, outcome in enumerate(OUTCOMES):
        # NaN, where an example has no rationale, is none of the four.
        having = np.flatnonzero(readings.outcomes[:, place] == 1)
        share = f"{len(having):,} of {len(readings.outcomes):,}"
        columns[f"{outcome.name.upper()}: {share}"] = _drawn(subject, having[:MOSAICS_PER_OUTCOME], names)
    return mosaic_grid(columns, f"{title}; the first of each kind")


def _drawn(subject: Subject, rows: NDArray[np.intp], names: tuple[str, ...]) -> list[ImageMosaic]:
    if not len(rows):
        return []
    batch = on_device(subject.examples[rows.tolist()], subject.device)
    output = subject.model(batch.tokens, batch.mask)
    images = _pixels(to_array(batch.tokens))
    attention, probabilities = to_array(output.attention), to_array(output.logits.softmax(-1))
    predicted, foreground = probabilities.argmax(1), marked_tokens(batch).argmax(1)
    return [
        ImageMosaic(
            images=images[row],
            attention=attention[row],
            foreground=int(foreground[row]),
            label=names[int(batch.labels[row])],
            predicted=names[int(predicted[row])],
            probability=float(probabilities[row, predicted[row]]),
        )
        for row in range(len(rows))
    ]


def _pixels(segments: FloatArray) -> FloatArray:
    """(N, m, channels, H, W) in [-1, 1], as `CifarMosaics` gives them, to (N, m, H, W, 3) in [0, 1]."""
    if np.abs(segments).max() > 1:
        raise ConfigurationError(
            f"Expected images with values in [-1, 1], but got up to {np.abs(segments).max():.3g}; scale the segments "
            "as CifarMosaics does."
        )
    moved = np.moveaxis(segments, 2, -1)
    return np.broadcast_to((moved + 1) / 2, (*moved.shape[:-1], 3))
