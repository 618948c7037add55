"""The names under which a run reports its metrics, and what is declared of a metric by its name."""

from functools import cache
from typing import Literal

from attn_lightning.errors import ConfigurationError, did_you_mean
from attn_lightning.evaluation.catalog import FAMILIES
from attn_lightning.evaluation.family import MODEL, Row
from attn_lightning.measurements import TRAINING, Measurements
from attn_lightning.metrics.explained import explained_measures
from attn_lightning.metrics.measure import Measure

COUNTERS = ("epoch", "step")
"""What Lightning counts: it can be monitored too, and the latest is the best."""


def flat_name(family: str, row: Row) -> str:
    """`faithfulness/attention/comprehensiveness[fraction=0.2]`; without an explainer where it is the model itself."""
    parts = [family, *([] if row.explainer == MODEL else [row.explainer]), row.metric]
    setting = ",".join(f"{key}={value}" for key, value in row.setting.items())
    return "/".join(parts) + (f"[{setting}]" if setting else "")


def logged_name(family: str, row: Row) -> str:
    """`faithfulness_comprehensiveness_fraction_0.2`, for loggers, which take no brackets."""
    return f"{family}_{row.metric}" + "".join(f"_{key}_{value}" for key, value in row.setting.items())


def declared(metric: str) -> Measure | None:
    """What is declared of a metric that a run reports; None if nothing is.

    Args:
        metric: `train/loss`, `val/accuracy`, `test/gradient_kendall_mean`, what an explainer
            (`test/post_hoc_accuracy_mean`) or `ProbeSet` logs (`val/faithfulness_decision_flip`), or of a suite
            (`evaluation/faithfulness/attention/decision_flip`).
    """
    split, _, name = metric.partition("/")
    if split == "train":
        return TRAINING.get(name)
    if split == "evaluation":
        family, *_, measured = name.split("[")[0].split("/")
        return FAMILIES[family].measures.get(measured) if family in FAMILIES else None
    if split not in ("val", "test"):
        return None
    return split_measures().get(name) or explained_measures().get(name) or _probed(name)


def _probed(name: str) -> Measure | None:
    """What is declared of a `logged_name`: the longest that fits, for `accuracy_area` begins as `accuracy` does."""
    # Names of families and metrics contain underscores, so that the name cannot be cut at one.
    found = [
        measure
        for family in FAMILIES.values()
        for measure in family.measures.values()
        if f"{name}_".startswith(f"{family.name}_{measure.name}_")
    ]
    return max(found, key=lambda measure: len(measure.name), default=None)


@cache
def split_measures() -> dict[str, Measure]:
    """All that a training measures of a split, whatever the data marks."""
    # With two classes, which have every metric that more classes have, and F1 of class 1 too.
    return Measurements(num_classes=2).measures()


def monitored() -> list[str]:
    """The metrics of every validation split of which one direction is better, with that direction, as help shows it."""
    return [f"val/{name} ({of.better})" for name, of in split_measures().items() if of.higher_is_better is not None]


def monitor_mode(metric: str, wanted: Literal["max", "min"] | None = None) -> Literal["max", "min"]:
    """Whether the largest or the smallest value of a monitored metric is the best: as declared, or as wanted.

    Args:
        metric: its name.
        wanted: the user's own choice, which counts before any declaration; None takes the declared direction.

    Raises:
        ConfigurationError: nothing is wanted, and no direction of the metric is declared.
    """
    if wanted is not None:
        return wanted
    measure = declared(metric)
    # Lightning's counters are no metrics, and "the best" is the last one.
    if metric in COUNTERS:
        return "max"
    if measure is None or measure.higher_is_better is None:
        known = [f"val/{name}" for name, of in split_measures().items() if of.higher_is_better is not None]
        raise ConfigurationError(
            f"Expected a metric whose direction is declared, but got {metric!r}; give `--run.monitor_mode` max or min "
            f"with it.{did_you_mean(metric, known)}"
        )
    return "max" if measure.higher_is_better else "min"
