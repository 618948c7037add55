"""The numbers of a run that matter, with an interval where one can be had, beside the controls."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attn_lightning.evaluation.family import MODEL
from attn_lightning.metrics.statistics import summarize
from attn_lightning.report.published import Known, published
from attn_lightning.report.run_data import Run, mapping, numbers
from attn_lightning.study.table import bounds_of

MOST = 10
CONTROLS = ("TF-IDF", "random", "uniform", "untrained")

_CANDIDATES = (
    "test/accuracy",
    "test/f1",
    "test/macro_f1",
    "test/log_loss",
    "test/ece",
    "test/teacher_agreement_mean",
    "test/post_hoc_accuracy_mean",
    "test/evidence_recall_mean",
    "test/ftpt",
    "test/ffpt",
    "evaluation/agreement/gradient/kendall",
    "test/gradient_kendall_mean",
    "evaluation/faithfulness/attention/aopc_comprehensiveness",
    "evaluation/faithfulness/attention/aopc_sufficiency",
    "evaluation/plausibility/attention/auprc",
    "evaluation/plausibility/attention/token_f1",
    "evaluation/plausibility/attention/rationale_mass",
    "test/evidence_mass_mean",
    "evaluation/sparsity/attention/entropy",
    "test/auroc",
    "cost/fit_seconds",
)
"""By importance; the first ten that a run has are shown. Of pairs that say the same, only the first."""

_SAME = {
    "test/f1": "test/macro_f1",
    "evaluation/agreement/gradient/kendall": "test/gradient_kendall_mean",
    "evaluation/plausibility/attention/rationale_mass": "test/evidence_mass_mean",
}
_Z = 1.959964
"""97.5 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Number:
    """One metric of one run, or of several that differ in their seed.

    Attributes:
        metric: its key.
        value: the mean over the seeds.
        low: lower end of the 95 % interval; NaN where there is none.
        high: upper end.
        over: what the interval is about: `seeds`, `documents`, or nothing.
        controls: the values of those controls that were measured.
        published: what others printed for the same; None where nobody did.
        std: standard deviation over seeds; NaN of a single run.
    """

    metric: str
    value: float
    low: float
    high: float
    over: str
    controls: Mapping[str, float]
    published: Known | None = None
    std: float = math.nan


def value(run: Run, metric: str) -> float:
    """A metric of a run, NaN where it has none."""
    place, _, name = metric.partition("/")
    return run.values(place).get(name if place == "cost" else metric, math.nan)


def chosen_metrics(runs: Iterable[Run], shown: Collection[str] = ()) -> list[str]:
    """At most ten of the metrics that the runs have, in the order of a reader's questions.

    Args:
        runs: the runs.
        shown: metrics that are shown in any case; of one that says the same as another of them, nothing is given.
    """
    runs = list(runs)
    found = [name for name in _CANDIDATES if any(not math.isnan(value(run, name)) for run in runs)]
    # One of the two is enough on a page; the first says more, such as a suite with its controls.
    for first, second in _SAME.items():
        if first in found and second in found:
            found.remove(second)
        if first in shown or second in shown:
            found = [name for name in found if name in shown or name not in (first, second)]
    return found[:MOST]


def key_numbers(seeds: Sequence[Run], metrics: Sequence[str]) -> list[Number]:
    """The metrics of runs that differ in nothing but the seed.

    Args:
        seeds: one or more runs.
        metrics: keys, those that no run has are left out.
    """
    found = [_number(seeds, metric) for metric in metrics]
    # A metric that some other run of the page has; an empty line would say that this one failed at it.
    return [number for number in found if not math.isnan(number.value)]


def _number(seeds: Sequence[Run], metric: str) -> Number:
    controls = {name: known for name in CONTROLS if not math.isnan(known := _control(seeds, metric, name))}
    known_elsewhere = published(seeds[0], metric)
    if len(seeds) > 1:
        summary = summarize([value(run, metric) for run in seeds], bounds_of(metric))
        over = "" if math.isnan(summary.low) else "seeds"
        return Number(metric, summary.mean, summary.low, summary.high, over, controls, known_elsewhere, summary.std)
    found = value(seeds[0], metric)
    low, high = _over_documents(seeds[0], metric)
    return Number(metric, found, low, high, "" if math.isnan(low) else "documents", controls, known_elsewhere)


def _over_documents(run: Run, metric: str) -> tuple[float, float]:
    """Interval of a mean over test documents: of accuracy Wilson's, else that of the normal distribution."""
    test, found = run.values("test"), value(run, metric)
    if metric == "test/accuracy":
        examples = mapping(mapping(run.data.get("splits")).get("test")).get("rows")
        return wilson(found, examples) if isinstance(examples, int) and examples > 0 else (math.nan, math.nan)
    if metric.endswith("_mean"):
        stem = metric.removesuffix("_mean")
        return _normal(found, test.get(f"{stem}_std", math.nan), test.get(f"{stem}_n_valid", math.nan))
    # What a suite measured keeps its deviation in the summary of the suite, not in the record.
    row = _row(run, metric, "rows")
    return _normal(found, row.get("std", math.nan), row.get("n_valid", math.nan))


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share p of n: `(p + z²/2n ± z sqrt(p(1 - p)/n + z²/4n²)) / (1 + z²/n)`.

    Args:
        share: p in [0, 1].
        count: n, at least 1.

    Returns:
        Lower and upper end, in [0, 1].
    """
    # Wilson's interval stays within [0, 1] and has a width at a share of 1, unlike the normal one.
    extra = _Z**2 / count
    half = _Z * math.sqrt(share * (1 - share) / count + extra / (4 * count))
    return max(0.0, (share + extra / 2 - half) / (1 + extra)), min(1.0, (share + extra / 2 + half) / (1 + extra))


def _normal(mean: float, deviation: float, count: float) -> tuple[float, float]:
    if not count > 1 or math.isnan(deviation):
        return math.nan, math.nan
    # The deviation that runs record is divided by n, that of an interval by n - 1.
    half = _Z * deviation / math.sqrt(count - 1)
    return mean - half, mean + half


def _control(seeds: Sequence[Run], metric: str, control: str) -> float:
    found = [known for run in seeds if not math.isnan(known := _control_of(run, metric, control))]
    # A study measures its controls with the first seed alone, for they do not depend on it.
    return found[0] if found else math.nan


def _control_of(run: Run, metric: str, control: str) -> float:
    place, _, name = metric.partition("/")
    if control == "TF-IDF":
        linear = numbers(mapping(run.record.get("control")).get("tfidf_logistic_regression"))
        return linear.get(name, math.nan) if place == "test" else math.nan
    if place != "evaluation":
        return math.nan
    if control == "untrained":
        return _row(run, metric, "untrained").get("value", math.nan)
    family, *explainer, measured = name.split("/")
    return value(run, f"evaluation/{family}/{control}/{measured}") if explainer else math.nan


def _row(run: Run, metric: str, kind: str) -> dict[str, float]:
    """The row of a metric in the summary of an evaluation of the run's own test split."""
    parts = metric.partition("[")[0].split("/")
    # With a setting there are several rows of one name, and none is the number of the page.
    if parts[0] != "evaluation" or "[" in metric:
        return {}
    family, explainer, name = parts[1], parts[2] if len(parts) == 4 else MODEL, parts[-1]
    for summary in run.suites.values():
        # Evaluations on other data may lie in the same run folder.
        if summary.get("split") == "test" and summary.get("sha256") == run.test_digest:
            rows = mapping(mapping(summary.get("families")).get(family)).get(kind)
            for row in rows if isinstance(rows, list) else []:
                if _is(row, name, explainer):
                    return numbers(row)
    return {}


def _is(row: Any, metric: str, explainer: str) -> bool:
    found = mapping(row)
    return found.get("metric") == metric and found.get("explainer") == explainer and not found.get("setting")
