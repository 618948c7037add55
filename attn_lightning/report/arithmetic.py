"""What two runs of one configuration and seed may differ in nevertheless: the arithmetic of their machines.

Sums are taken in another order with other threads, kernels or builds of torch, and a training can make much of the
last digit: the number of a single seed then belongs to a machine, and only the spread over seeds says something.
"""

import json
from collections.abc import Mapping
from typing import Any

from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.naming import declared
from attn_lightning.report.run_data import Run, mapping
from attn_lightning.study.publishing import arithmetic_of
from attn_lightning.study.state import comparable


def same_but_for_arithmetic(first: Run, second: Run) -> str:
    """A sentence about two runs of one configuration, seed and commit: what their machines alone decided.

    Args:
        first: run A.
        second: run B, tested on the same documents.

    Returns:
        Empty where the runs differ in more than that, or do not say where they ran.
    """
    machines = arithmetic_of(first.record), arithmetic_of(second.record)
    # Another version of the code may compute something else, and would be taken for the machine.
    commits = [mapping(run.record.get("environment")).get("commit") for run in (first, second)]
    if not all(machines) or commits[0] != commits[1] or not _same_configuration(first, second):
        return ""
    tests = first.values("test"), second.values("test")
    moved = {
        name: tests[1][name] - value
        for name, value in tests[0].items()
        if name in tests[1] and (measure := declared(name)) is not None and measure.higher_is_better is not None
    }
    # Equal to the last bit: a tolerance would hide exactly what this is about.
    moved = {name: change for name, change in moved.items() if change != 0}
    alike = machines[0] == machines[1]
    where = (
        f"the same arithmetic ({machines[0]})" if alike else f"other arithmetic (A: {machines[0]}; B: {machines[1]})"
    )
    if not moved:
        return f"Same configuration and seed, {where}: every test metric is equal."
    # The number that papers print, or the one that moved the most.
    name = "test/accuracy" if "test/accuracy" in moved else max(moved, key=lambda each: abs(moved[each]))
    return (
        f"Same configuration and seed, {where}: {name} differs by {moved[name]:+.4f} ({tests[0][name]:.4f} and "
        f"{tests[1][name]:.4f}), {len(moved)} test metrics differ. So much of the number of a single seed is its "
        "machine's: report means over seeds."
    )


def configuration_but_seed(run: Run) -> str:
    """What decided about the results of a run beside its seed: equal texts for runs that differ in their seed alone.

    Empty where the configuration cannot be read, of which nothing can be told.
    """
    try:
        kept = comparable(dict(run.config))
    except (AttributeError, TypeError, ConfigurationError):
        return ""
    return json.dumps(_without_seed(kept, run.seed), sort_keys=True, default=str)


def _without_seed(value: Any, seed: int | None) -> Any:
    # Other options may follow the seed: which labels are shown, and the run of that seed which a method begins from.
    if isinstance(value, Mapping):
        follows = [key for key in value if key in ("seed", "seed_everything", "label_seed") and value[key] == seed]
        return {str(key): _without_seed(each, seed) for key, each in value.items() if key not in follows}
    if isinstance(value, list):
        return [_without_seed(each, seed) for each in value]
    return value.replace(f"seed_{seed}/", "seed/") if isinstance(value, str) else value


def _same_configuration(first: Run, second: Run) -> bool:
    try:
        return bool(first.config) and comparable(dict(first.config)) == comparable(dict(second.config))
    except (AttributeError, TypeError, ConfigurationError):  # of a damaged file nothing can be said
        return False
