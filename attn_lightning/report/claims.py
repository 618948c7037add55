"""What papers claim, held against the numbers of studies: one verdict by one rule, never by hand.

A claim names two methods and a metric of a study. Its verdict comes from the 95 % interval of their paired difference
over seeds, so that it changes with the runs and with nothing else.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from attn_lightning.errors import ConfigurationError, did_you_mean
from attn_lightning.metrics.statistics import Comparison, compare, holm
from attn_lightning.study.archive import SUFFIX, read_archive, states
from attn_lightning.study.configuration import study_contents_of
from attn_lightning.study.expansion import Cell, expand
from attn_lightning.study.named import named_study
from attn_lightning.study.state import Parse
from attn_lightning.study.table import bounds_of, value
from attn_lightning.study.validation import validate

logger = logging.getLogger(__name__)

Verdict = Literal["holds", "does not hold", "cannot be told"]
Direction = Literal["higher", "lower"]

_NEEDED = {"claim", "source", "study", "data", "method", "against", "metric", "direction"}
_NUMBERS = ("published", "at_least", "matters")
_KEYS = _NEEDED | {*_NUMBERS, "options", "reading"}
_DIGITS = 3


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper as a difference between two methods.

    Attributes:
        claim: the sentence.
        source: its paper.
        study: name of the study whose archive is asked.
        data: label of the data there.
        method: label of the method that the claim is about.
        against: label of what it is compared with.
        metric: such as `test/accuracy`.
        direction: where the claim says that the difference lies.
        published: the difference in the paper; NaN where it has none.
        at_least: the difference to the side of the claim is said to be above this; below 0 for "loses no more than".
        matters: the smallest difference that anybody would act on, in the unit of the metric.
        options: label of the options there; empty where the study has one set of them.
        reading: a sentence about the result.
    """

    claim: str
    source: str
    study: str
    data: str
    method: str
    against: str
    metric: str
    direction: Direction
    published: float = math.nan
    at_least: float = 0.0
    matters: float = 0.0
    options: str = ""
    reading: str = ""

    @property
    def sentence(self) -> str:
        """What is claimed, and by whom."""
        return f"{self.claim} ({self.source})"

    @property
    def on(self) -> str:
        """What is compared, and by which metric."""
        where = ", ".join(filter(None, (self.data, self.options)))
        return f"{where}: {self.method} − {self.against}, {self.metric}"


@dataclass(frozen=True)
class Finding:
    """A claim and what the runs say of it.

    Attributes:
        claim: the claim.
        asked: number of seeds of the study.
        measured: the paired difference over the seeds that have both runs.
        p_holm: p-value of its paired permutation test, adjusted over all claims that are asked about at once.
    """

    claim: Claim
    asked: int
    measured: Comparison
    p_holm: float = math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Of the difference to the side of the claim: positive is as claimed."""
        ends = (self.measured.low, self.measured.high)
        return ends if self.claim.direction == "higher" else (-ends[1], -ends[0])

    @property
    def is_compared(self) -> bool:
        """Whether there are two seeds at least, without which there is no interval."""
        return self.measured.n > 1

    @property
    def verdict(self) -> Verdict:
        """Holds where the whole interval is above `at_least`.

        It does not hold where the whole interval is below that, or below what matters. Everything else cannot be told,
        and nothing can before all seeds are there that the study asks for: whoever looks after each seed, and stops at
        an interval that decides, is wrong more often than the interval says.
        """
        low, high = self.interval
        if math.isnan(low) or self.measured.n < self.asked:
            return "cannot be told"
        if low > self.claim.at_least:
            return "holds"
        return "does not hold" if high < self._least else "cannot be told"

    @property
    def _least(self) -> float:
        """The smallest difference that would support the claim."""
        least, matters = self.claim.at_least, self.claim.matters
        # "Loses no more than" is supported by no difference at all, whatever would matter.
        return max(least, matters) if matters and least >= 0 else least

    @property
    def why(self) -> str:
        """What of the interval decides, in words."""
        if self.measured.n < 2:
            return "one seed" if self.measured.n else "not run"
        if self.measured.n < self.asked:
            return f"{self.measured.n} of the {self.asked} seeds are there"
        high = self.interval[1]
        least, matters = self.claim.at_least, self.claim.matters
        # In the sign of the difference, which stands beside it.
        above, sign = ("above", 1) if self.claim.direction == "higher" else ("below", -1)
        if self.verdict == "holds":
            small = f", but {'below' if sign > 0 else 'above'} {sign * matters:g}, which would matter"
            return f"all of the interval is {above} {sign * least + 0.0:g}{small if high < matters else ''}"
        if self.verdict == "does not hold":
            excluded = f"a difference of {sign * self._least:g} is excluded"
            return "the interval has the opposite sign" if high < 0 else excluded
        seeds = self.measured.seeds_needed
        needed = f"; {math.ceil(seeds)} seeds might tell" if least == 0 and math.isfinite(seeds) else ""
        ends = f"{_signed(self.measured.low)} to {_signed(self.measured.high)}"
        return f"the interval reaches from {ends}{self._published}{needed}"

    @property
    def _published(self) -> str:
        """Whether an interval that does not decide about the claim decides about its number."""
        published = self.claim.published
        if math.isnan(published) or self.measured.low <= published <= self.measured.high:
            return ""
        return f", which leaves out the published {_signed(published)}"

    @property
    def difference(self) -> str:
        """What was measured, with its interval from two seeds on."""
        low, high = self.measured.low, self.measured.high
        return _signed(self.measured.difference) + (f" [{_signed(low)}, {_signed(high)}]" if math.isfinite(low) else "")

    @property
    def seeds(self) -> str:
        """How many have both runs, of how many."""
        return f"{self.measured.n}/{self.asked}"


def read_claims(path: Path) -> list[Claim]:
    """The claims of a YAML file.

    Args:
        path: a mapping with `claims`, a list. `data` and `method` may be lists, which are as many claims.

    Raises:
        ConfigurationError: there is no such file, or it is not such YAML.
    """
    if not path.exists():
        raise ConfigurationError(
            f"Expected a file of claims at {path}, but there is none; correct the path, or write `claims`, a list."
        )
    contents = study_contents_of(path, "`claims`")
    entries = contents.get("claims")
    if not isinstance(entries, list) or not entries or set(contents) != {"claims"}:
        raise ConfigurationError(f"Expected {path} to hold `claims`, a list, but got {list(contents)}; write one.")
    return [claim for number, entry in enumerate(entries, 1) for claim in _claims(path, number, entry)]


def _claims(path: Path, number: int, entry: Any) -> list[Claim]:
    where = f"claim {number} of {path}"
    if not isinstance(entry, dict):
        raise ConfigurationError(f"Expected {where} to be a mapping, but got {entry!r}; write {_wanted()}.")
    for key in entry:
        if key not in _KEYS:
            raise ConfigurationError(
                f"Expected {where} to have {_wanted()}, but got {key!r}.{did_you_mean(str(key), _KEYS)}"
            )
    if missing := sorted(_NEEDED - entry.keys()):
        raise ConfigurationError(f"Expected {where} to have {_wanted()}, but {', '.join(missing)} is missing; add it.")
    if entry["direction"] not in get_args(Direction):
        raise ConfigurationError(
            f"Expected `direction` of {where} to be higher or lower, but got {entry['direction']!r}; write one of them."
        )
    for key in sorted(entry.keys() - {*_NUMBERS, "data", "method"}):
        if not isinstance(entry[key], str):
            raise ConfigurationError(f"Expected `{key}` of {where} to be text, but got {entry[key]!r}; correct it.")
    for key in _NUMBERS:
        found = entry.get(key, 0.0)
        if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
            raise ConfigurationError(
                f"Expected `{key}` of {where} to be a number in the unit of the metric, but got {found!r}; correct it."
            )
    return [
        Claim(**{**entry, "data": str(data), "method": str(method)})
        for data in _list(entry["data"])
        for method in _list(entry["method"])
    ]


def _wanted() -> str:
    return f"{', '.join(sorted(_NEEDED))} (and {', '.join(sorted(_KEYS - _NEEDED))} if need be)"


def _list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else [found]


def findings(claims: Sequence[Claim], archives: Path, parse: Parse) -> list[Finding]:
    """What the runs say of every claim.

    Args:
        claims: the claims.
        archives: folder of `STUDY.jsonl.gz`; a study without one was not run.
        parse: the parser of `fit`, which tells runs that the study asks for now from those of an earlier version of it.

    Raises:
        ConfigurationError: a study, method or data that does not exist; a damaged archive.
    """
    by_study: dict[str, list[Claim]] = {}
    for claim in claims:
        by_study.setdefault(claim.study, []).append(claim)
    read = {name: _records(name, archives, about, parse) for name, about in by_study.items()}
    found = [_finding(claim, *read[claim.study]) for claim in claims]
    adjusted = holm([each.measured.p for each in found])
    return [replace(each, p_holm=p) for each, p in zip(found, adjusted, strict=True)]


_Records = Mapping[tuple[str, str, str], Mapping[int, Mapping[str, Any]]]


def _records(name: str, archives: Path, claims: Sequence[Claim], parse: Parse) -> tuple[_Records, int]:
    """The records of a study by method, data and options, then by seed, of those of the claims; and its seeds."""
    study = named_study(name)
    path = archives / f"{study.name}{SUFFIX}"
    entries = read_archive(path) if archives.is_dir() else {}
    asked = {(method, claim.data, claim.options) for claim in claims for method in (claim.method, claim.against)}
    cells = expand(study)
    records: dict[tuple[str, str, str], dict[int, Mapping[str, Any]]] = {_place(cell): {} for cell in cells}
    # To parse a command takes a tenth of a second: only those that somebody claims something of.
    claimed = [cell for cell in cells if _place(cell) in asked and str(cell) in entries]
    # The files of the data are not asked for: what is claimed stands or falls without them.
    metrics = list(dict.fromkeys(claim.metric for claim in claims))
    wanted = validate(claimed, Path("runs") / study.name, parse, lambda _: {}, metrics)
    others = []
    for cell, found in states(entries, dict(zip(claimed, wanted, strict=True)), parse).items():
        if found.state == "complete":
            records[_place(cell)][cell.seed] = found.record
        else:
            others.append(str(cell))
    if others:
        logger.warning(
            "%d of the runs in %s are of another configuration or other data than the study asks for, or not finished, "
            "and do not count; the first is %s",
            len(others),
            path,
            others[0],
        )
    return records, len(study.seeds)


def _place(cell: Cell) -> tuple[str, str, str]:
    return cell.method, cell.data, cell.options


def _named(method: str, data: str, options: str) -> str:
    return f"{method} on {', '.join(filter(None, (data, options)))}"


def _finding(claim: Claim, records: _Records, asked: int) -> Finding:
    for method in (claim.method, claim.against):
        if (method, claim.data, claim.options) not in records:
            # With the options that the study crosses with all cells: a claim is about one set of them.
            known, wanted = [_named(*place) for place in records], _named(method, claim.data, claim.options)
            raise ConfigurationError(
                f"Expected a cell of {claim.study}, but got {wanted} for {claim.claim!r}; correct method, data and "
                f"`options`.{did_you_mean(wanted, known)}"
            )
    first, second = (
        {seed: value(record, claim.metric) for seed, record in records[method, claim.data, claim.options].items()}
        for method in (claim.method, claim.against)
    )
    return Finding(claim, asked, compare(first, second, bounds_of(claim.metric)))


def markdown(found: Sequence[Finding]) -> str:
    """How many claims hold, a table of those that were compared, a row for each, and a line with what was not."""
    measured = [each for each in found if each.is_compared]
    counts = {verdict: sum(each.verdict == verdict for each in measured) for verdict in get_args(Verdict)}
    lines = [
        f"Of {len(measured)} comparisons {counts['holds']} hold, {counts['does not hold']} do not, and "
        f"{counts['cannot be told']} cannot be told.",
        "",
        "| claim | on | published | ours, paired difference | seeds | p (Holm) | verdict | study |",
        "|---|---|---:|---:|---:|---:|---|---|",
    ]
    for each in measured:
        claim = each.claim
        cells = (
            claim.sentence,
            claim.on,
            _signed(claim.published),
            each.difference,
            each.seeds,
            f"{each.p_holm:.2g}" if math.isfinite(each.p_holm) else "–",
            f"**{each.verdict}**: {each.why}{f'; {claim.reading}' if claim.reading else ''}",
            f"[{claim.study}](#{claim.study})",
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    absent: dict[tuple[str, str], list[str]] = {}
    for each in found:
        if not each.is_compared:
            begun = " with one seed" if each.measured.n else ""
            absent.setdefault((each.claim.claim, each.claim.study), []).append(each.claim.data + begun)
    named = [f"{claim} ({study}: {', '.join(data)})" for (claim, study), data in absent.items()]
    return "\n".join([*lines, *(["", f"Not run: {'; '.join(named)}."] if named else [])])


def _signed(number: float) -> str:
    # A minus sign, not a hyphen, which Markdown may break a line at.
    return f"{number:+z.{_DIGITS}f}".replace("-", "−") if math.isfinite(number) else "–"
