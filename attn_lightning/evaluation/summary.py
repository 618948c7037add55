"""From rows to what a person reads: one table per family, controls beside it, and a mark where a control is as good."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from attn_lightning.console import printable
from attn_lightning.evaluation.family import MODEL, Family, Row
from attn_lightning.evaluation.naming import flat_name
from attn_lightning.evaluation.suite import Findings, row_to_json
from attn_lightning.metrics.measure import Measure
from attn_lightning.sheet import Sheet

UNTRAINED = "untrained"
MARK = "†"
LINEAR = "TF-IDF linear"


@dataclass(frozen=True)
class Summary:
    """All that an evaluation found.

    Attributes:
        families: those that were measured, for their measures and headings.
        trained: rows of the model.
        untrained: rows of the same model with fresh random weights; empty if it was not measured.
        linear: prediction metrics of the TF-IDF logistic regression by name, empty without one.
        controls: names of the explainers that are controls.
    """

    families: Sequence[Family]
    trained: Findings
    untrained: Findings
    linear: Mapping[str, float | None]
    controls: Sequence[str] = ()

    def beaten_by(self, family: Family, row: Row) -> list[str]:
        """The controls that are as good as the row or better; empty for controls and where there is nothing to beat."""
        if row.metric in family.uncontrolled or row.explainer in self.controls:
            return []
        rivals = self.rivals(family, row)
        if row.metric in family.free_untrained:
            rivals.pop(UNTRAINED)
        return as_good(family.measures[row.metric], row.value, rivals)

    def rivals(self, family: Family, row: Row) -> dict[str, float | None]:
        """What the controls have in the place of a row, by their names; None where they have nothing."""
        found = {name: _find(self.trained, family, row, name) for name in self.controls}
        found[UNTRAINED] = _find(self.untrained, family, row, row.explainer)
        # The linear control predicts only: rows of explainers have nothing to compare it with.
        if row.explainer == MODEL:
            found[LINEAR] = self.linear.get(row.metric)
        return found

    def to_json(self) -> dict[str, Any]:
        """Everything, as `summary.json` keeps it."""
        return {
            "families": {
                family.name: {
                    "measures": {name: _describe(measure) for name, measure in family.measures.items()},
                    "rows": [
                        {**row_to_json(row), "beaten_by": self.beaten_by(family, row)}
                        for row in self.trained.rows[family.name]
                    ],
                    "untrained": [row_to_json(row) for row in self.untrained.rows.get(family.name, [])],
                }
                for family in self.families
                if family.name in self.trained.rows
            },
            "tfidf_logistic_regression": dict(self.linear),
            "skipped": self.trained.skipped,
        }

    def flat(self) -> dict[str, float | None]:
        """Every value by `family/explainer/metric[setting]`, the names that studies take."""
        return {flat_name(name, row): row.value for name, rows in self.trained.rows.items() for row in rows}


def as_good(measure: Measure, value: float | None, rivals: Mapping[str, float | None]) -> list[str]:
    """Names of the rivals whose value is as good or better; none where there is no direction."""
    if measure.higher_is_better is None or value is None:
        return []
    # Nothing can be better than the best possible value, so being equalled there says nothing.
    if value == (measure.maximum if measure.higher_is_better else measure.minimum):
        return []
    sign = 1 if measure.higher_is_better else -1
    return [name for name, other in rivals.items() if other is not None and sign * other >= sign * value]


def _find(findings: Findings, family: Family, row: Row, explainer: str) -> float | None:
    """The value that another explainer has in the place of a row; None if there is none."""
    for other in findings.rows.get(family.name, []):
        if (other.metric, other.explainer, dict(other.setting)) == (row.metric, explainer, dict(row.setting)):
            return other.value
    return None


def _describe(measure: Measure) -> dict[str, Any]:
    def finite(value: float) -> float | None:
        # JSON has no infinity.
        return value if abs(value) != float("inf") else None

    return {
        "meaning": measure.meaning,
        "minimum": finite(measure.minimum),
        "maximum": finite(measure.maximum),
        "higher_is_better": measure.higher_is_better,
        "unit": measure.unit,
        "uninformative": measure.uninformative,
    }


def print_skipped(summary: Summary, console: Console) -> None:
    """A line for all that was asked for and cannot be had on this data or model."""
    for name, reason in summary.trained.skipped.items():
        console.print(Text(f"not measured: {printable(name)}: {printable(reason)}"))


def summary_markdown(summary: Summary, title: str) -> str:
    """All tables as Markdown, with what every metric means."""
    parts = [f"# {printable(title)}", *(sheet.markdown() for sheet in sheets(summary))]
    meanings = [
        (f"{family.name}/{measure.name}", measure.meaning, measure.span, measure.better)
        for family in summary.families
        if family.name in summary.trained.rows
        for measure in family.measures.values()
    ]
    header = ("metric", "meaning", "range", "better")
    parts.append(Sheet("What the metrics mean", header, meanings, texts=header).markdown())
    parts += [f"Not measured: {printable(name)}: {printable(r)}" for name, r in summary.trained.skipped.items()]
    return "\n\n".join(parts) + "\n"


def sheets(summary: Summary) -> Iterator[Sheet]:
    """The tables of every family."""
    for family in summary.families:
        yield from _family_sheets(summary, family)


def _family_sheets(summary: Summary, family: Family) -> Iterator[Sheet]:
    """The tables of a family.

    Rows of a single class are left to `summary.json`. Rows about the model with a strength in their setting (`epsilon`,
    `budget`) are curves: a table for every place of attack (`where`), a column per strength. All others: a line per
    metric and setting, a column per explainer.
    """
    rows = [row for row in summary.trained.rows.get(family.name, []) if "class" not in row.setting]
    curves = [row for row in rows if row.explainer == MODEL and _strength(row) is not None]
    places = list(dict.fromkeys(row.setting.get("where") for row in curves))
    flat = [row for row in rows if row not in curves and row.setting.get("where") not in places]
    if flat or (rows and not places):
        yield _flat_sheet(summary, family, flat)
    for place in places:
        yield _curve_sheet(summary, family, [row for row in rows if row.setting.get("where") == place], place)


def _strength(row: Row) -> tuple[str, float] | None:
    """Name and value of what is varied along a curve."""
    for name, symbol in (("epsilon", "ε"), ("budget", "budget")):
        if name in row.setting:
            return symbol, float(row.setting[name])
    return None


def _flat_sheet(summary: Summary, family: Family, rows: Sequence[Row]) -> Sheet:
    columns = _columns(rows, summary.controls)
    # With one column a control of the same name stands beside it.
    untrained = {(row.explainer, _line(row)): row.value for row in summary.untrained.rows.get(family.name, [])}
    # The untrained model stands beside one column only: that of the model, else of the first explainer, attention.
    judged = MODEL if MODEL in columns else columns[0] if columns else MODEL
    others = []
    if untrained:
        others.append(UNTRAINED if judged == MODEL else f"{judged}, {UNTRAINED}")
    if summary.linear and any(row.metric in summary.linear for row in rows if row.explainer == MODEL):
        others.append(LINEAR)
    lines, rivals = [], []
    for line, group in _lines(rows):
        cells = []
        for name in columns:
            row = group.get(name)
            better = summary.beaten_by(family, row) if row is not None else []
            rivals += better
            cells.append("-" if row is None else number(row.value) + MARK * bool(better))
        # All rows of a line are of one metric and setting, so that any of them names it.
        first = next(iter(group.values()))
        if untrained:
            cells.append(number(untrained.get((first.explainer if MODEL in group else judged, line))))
        if LINEAR in others:
            cells.append(number(summary.linear.get(first.metric)) if MODEL in group else "-")
        measure = family.measures[first.metric]
        lines.append((line, *cells, _count(group.values()), measure.span, measure.better))
    header = ("metric", *columns, *others, "n", "range", "better")
    return Sheet(family.heading, header, lines, dim=[*summary.controls, *others], note=marks_note(rivals))


def _curve_sheet(summary: Summary, family: Family, rows: Sequence[Row], place: str | None) -> Sheet:
    """A line per metric, attack and target; `<metric>_area` stands at the end of the line of its metric."""
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    columns: dict[str, float] = {}
    rivals: list[str] = []
    for row in rows:
        strength = _strength(row)
        metric, column = row.metric, "value"
        if strength is not None:
            column = f"{strength[0]} {strength[1]:g}"
            columns[column] = strength[1]
        elif row.metric.endswith("_area") and row.metric.removesuffix("_area") in family.measures:
            metric, column = row.metric.removesuffix("_area"), "area"
        better = summary.beaten_by(family, row)
        rivals += better
        kept = (str(value) for key, value in row.setting.items() if key not in ("epsilon", "budget", "where"))
        lines.setdefault((metric, *kept), {})[column] = number(row.value) + MARK * bool(better)
    # Areas come first among the rows, but a reader looks for the order of the curves.
    order = sorted(columns, key=lambda column: columns[column])
    shown = order + [name for name in ("area", "value") if any(name in line for line in lines.values())]
    cells = []
    for key, line in lines.items():
        measure = family.measures[key[0]]
        cells.append((" ".join(key), *(line.get(name, "") for name in shown), measure.span, measure.better))
    title = f"{family.heading} {place or ''}".strip()
    return Sheet(title, ("metric", *shown, "range", "better"), cells, note=marks_note(rivals))


def marks_note(rivals: Sequence[str]) -> str:
    """What the marks of a table say; "" where nothing is marked.

    Args:
        rivals: the controls behind all of its marks, any number of times each.
    """
    named = ", ".join(dict.fromkeys(rivals))
    return f"{MARK} a control in the same row is as good or better ({named})" if rivals else ""


def _columns(rows: Sequence[Row], controls: Sequence[str]) -> list[str]:
    """Explainers in the order of the rows, controls after them."""
    names = list(dict.fromkeys(row.explainer for row in rows))
    return [name for name in names if name not in controls] + [name for name in names if name in controls]


def _lines(rows: Sequence[Row]) -> Iterator[tuple[str, dict[str, Row]]]:
    groups: dict[str, dict[str, Row]] = {}
    for row in rows:
        groups.setdefault(_line(row), {})[row.explainer] = row
    yield from groups.items()


def _line(row: Row) -> str:
    setting = " ".join(f"{key}={value}" for key, value in row.setting.items())
    return f"{row.metric} {setting}".strip()


def number(value: float | None) -> str:
    """A number for people; `-` where it is undefined."""
    return "-" if value is None else f"{value:.4f}"


def _count(rows: Any) -> str:
    """How many examples count: one number, or the smallest and largest over the columns."""
    counts = sorted({row.n_valid for row in rows})
    return f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,}-{counts[-1]:,}"
