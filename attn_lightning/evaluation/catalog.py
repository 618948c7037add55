"""The families and explainers that can be asked for by name."""

from collections.abc import Mapping, Sequence
from typing import Any

from attn_lightning.backbone.protocol import Backbone
from attn_lightning.errors import ConfigurationError, did_you_mean
from attn_lightning.evaluation.explainer import Explainer
from attn_lightning.evaluation.explainers.available import explainers as available_explainers
from attn_lightning.evaluation.families.agreement import AgreementFamily
from attn_lightning.evaluation.families.attention_tests import AttentionTests
from attn_lightning.evaluation.families.calibration import Calibration
from attn_lightning.evaluation.families.faithfulness import Faithfulness
from attn_lightning.evaluation.families.plausibility import Plausibility
from attn_lightning.evaluation.families.robustness import Robustness
from attn_lightning.evaluation.families.selective import Selective
from attn_lightning.evaluation.families.shortcut_probe import ShortcutProbe
from attn_lightning.evaluation.families.sparsity import Geometry, Sparsity
from attn_lightning.evaluation.family import Family

FAMILIES: dict[str, type[Family]] = {
    family.name: family
    for family in (
        Calibration,
        AgreementFamily,
        Faithfulness,
        Plausibility,
        Selective,
        Sparsity,
        Geometry,
        AttentionTests,
        ShortcutProbe,
        Robustness,
    )
}

SUITES: dict[str, tuple[str, ...]] = {
    "all": tuple(FAMILIES),
    "fast": ("agreement", "faithfulness", "plausibility", "selective", "sparsity"),
}
"""Names that stand for several families; `fast` is what `fit` measures at the end of a training."""

FAST_EXPLAINERS = "attention,gradient,random,uniform"
DEFAULT_EXPLAINERS = "attention,gradient,hidden,loo,random,uniform,inverted,rationale"


def chosen_families(
    names: str, options: Mapping[str, Mapping[str, Any]] | None = None, others: Mapping[str, Backbone] | None = None
) -> list[Family]:
    """The families of a comma-separated list of families and suites, in their usual order.

    Args:
        names: for example `all` or `faithfulness,plausibility`.
        options: constructor arguments by family.
        others: models that attention is compared with, by name.

    Raises:
        ConfigurationError: an unknown name.
    """
    wanted: set[str] = set()
    for name in _split(names):
        _check(name, [*SUITES, *FAMILIES], "--suite")
        wanted.update(SUITES.get(name, (name,)))
    # In the order of the tables, whatever the order of the names.
    built = []
    for name, family in FAMILIES.items():
        if name in wanted:
            arguments = dict((options or {}).get(name, {}))
            # Models are nothing that an option of the command line could hold.
            if family is AttentionTests and others:
                arguments["others"] = others
            built.append(family(**arguments))
    return built


def chosen_explainers(names: str) -> dict[str, Explainer]:
    """The explainers of a comma-separated list, attention first; `all` takes every one.

    Raises:
        ConfigurationError: an unknown name.
    """
    known = available_explainers()
    wanted = []
    for name in _split(names):
        _check(name, ["all", *known], "--explainers")
        wanted += list(known) if name == "all" else [name]
    # Attention always: agreement compares every other explanation with it.
    return {name: known[name]() for name in dict.fromkeys(["attention", *wanted])}


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _check(name: str, known: Sequence[str], option: str) -> None:
    if name not in known:
        raise ConfigurationError(
            f"Expected `{option}` to name some of {', '.join(known)}, but got {name!r}."
            f"{did_you_mean(name, known, most=1)} Separate them by commas."
        )
