"""What a metric is, said once beside the function that computes it: every table, study, figure and help reads it there.

A metric is added in its file of this room, function and declaration together, and tested in the test of that file.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

MANY = float("inf")
"""The maximum of what has none."""


@dataclass(frozen=True)
class Measure:
    """What a reader must know of a metric to read its number.

    Attributes:
        name: under which results call it.
        meaning: what the number says, in words that need no formula.
        minimum: smallest possible value; -inf if there is none.
        maximum: largest possible value; inf if there is none.
        higher_is_better: direction; None where neither is better.
        unit: of the value, "" for none.
        uninformative: what an explanation (or a prediction) without any information has on average; None where that
            depends on the data: the controls of the same table say it then.
    """

    name: str
    meaning: str
    minimum: float = 0.0
    maximum: float = 1.0
    higher_is_better: bool | None = True
    unit: str = ""
    uninformative: float | None = None

    @property
    def span(self) -> str:
        """The range, `-1..1` or `0.., nats`."""
        lowest, highest = (("" if abs(v) == float("inf") else f"{v:.4g}") for v in (self.minimum, self.maximum))
        return f"{lowest}..{highest}" + (f", {self.unit}" if self.unit else "")

    @property
    def better(self) -> str:
        """`higher`, `lower`, or `-` where neither is better."""
        return {True: "higher", False: "lower", None: "-"}[self.higher_is_better]

    @property
    def line(self) -> str:
        """All that a reader must know, as help shows it."""
        direction = "" if self.higher_is_better is None else f"; {self.better} is better"
        return f"{self.name}: {self.meaning} ({self.span}{direction})"

    def called(self, name: str, meaning: str | None = None) -> "Measure":
        """The same quantity under another name, and with another sentence if what it is taken of differs."""
        return replace(self, name=name, meaning=meaning or self.meaning)

    def over_examples(self) -> tuple["Measure", "Measure", "Measure"]:
        """`<name>_mean`, `<name>_std` and `<name>_n_valid`, where this is one number per example."""
        # The widest spread has half of the examples at either end.
        spread = (self.maximum - self.minimum) / 2
        return (
            self.called(f"{self.name}_mean"),
            Measure(f"{self.name}_std", f"standard deviation: {self.meaning}", 0.0, spread, None, self.unit),
            Measure(f"{self.name}_n_valid", f"examples with a value: {self.meaning}", 0.0, MANY, None, "examples"),
        )


def by_name(measures: Iterable[Measure]) -> dict[str, Measure]:
    """The measures by their names, in the same order.

    Raises:
        ValueError: two have the same name.
    """
    found: dict[str, Measure] = {}
    for measure in measures:
        if measure.name in found:
            raise ValueError(f"Expected one declaration per metric, but got two of {measure.name!r}; rename one.")
        found[measure.name] = measure
    return found
