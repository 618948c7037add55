"""Whether a run will have a metric, told from its configuration before anything runs."""

from collections.abc import Iterator, Mapping
from typing import Any

from attn_lightning.callbacks.cost import COSTS
from attn_lightning.errors import did_you_mean
from attn_lightning.evaluation.catalog import FAMILIES, chosen_explainers, chosen_families
from attn_lightning.evaluation.explainers.available import explainers as available_explainers
from attn_lightning.evaluation.naming import declared, split_measures

_OURS = ("attn_lightning", "lightning", "torch")


def why_not_logged(metric: str, config: Mapping[str, Any]) -> str | None:
    """Why runs of a configuration cannot have a metric; None if they may.

    The declarations of the metrics decide. Names under `train/` pass, since methods choose theirs, and every name does
    where a class of the user's own takes part, because it may log under any.

    Args:
        metric: `val/...`, `best/...`, `test/...`, `train/...`, `cost/...` or `evaluation/...`.
        config: the parsed configuration of a `fit`.
    """
    split, _, name = metric.partition("/")
    run = config["run"]
    # A refusal here would stop a study that would have worked: in doubt the run is let through.
    if any(path.partition(".")[0] not in _OURS for path in _classes(config)):
        return None
    if split == "best":
        # Only one metric chooses the best epoch, and only of it is a best value logged.
        wanted = f"best/{run['monitor']}"
        return None if metric == wanted else f"the best epoch is chosen by {run['monitor']}: use {wanted}"
    if split == "train":
        return None
    if split == "cost":
        return None if name in COSTS else f"there is no such cost.{did_you_mean(name, COSTS)}"
    if split in ("test", "evaluation") and not run["test"]:
        return "the runs have `run.test: false`"
    if split in ("test", "evaluation") and _has_no_test_file(config):
        return (
            "the data has a file for training alone; give a folder with train and test, `data.test=FILE`, or take val/ "
            "metrics, of the texts that are kept back for validation"
        )
    if not _is_declared(metric):
        return f"nothing logs it.{did_you_mean(metric, _names(split))}"
    if split == "evaluation":
        family = name.partition("/")[0]
        measured = [] if run["suite"] == "none" else [found.name for found in chosen_families(run["suite"])]
        if family not in measured:
            return f"`run.suite: {run['suite']}` does not measure {family}"
        return _why_not_explained(name, str(run["suite_explainers"]))
    return None


def _why_not_explained(name: str, explainers: str) -> str | None:
    """Why a suite does not measure an explanation, `FAMILY/EXPLAINER/METRIC`; None where it does, or names none."""
    _, *rest = name.split("/")
    if len(rest) < 2 or rest[0] not in available_explainers() or rest[0] in chosen_explainers(explainers):
        return None
    return f"`run.suite_explainers: {explainers}` does not have {rest[0]}"


def _has_no_test_file(config: Mapping[str, Any]) -> bool:
    data = config.get("data") or {}
    return str(data.get("class_path")).endswith(".TextFiles") and data.get("init_args", {}).get("test") is None


def _is_declared(metric: str) -> bool:
    split, _, name = metric.partition("/")
    # What a suite measures is called by its family first.
    # A family without a metric, `evaluation/agreement`, is the name of many numbers.
    complete = "/" in name if split == "evaluation" else split in ("val", "test")
    return complete and declared(metric) is not None


def _names(split: str) -> list[str]:
    """What could have been meant."""
    if split == "evaluation":
        return [f"evaluation/{family}/attention/{name}" for family in FAMILIES for name in FAMILIES[family].measures]
    # With another first part, the split itself may be what was misspelled.
    splits = (split,) if split in ("val", "test") else ("val", "test")
    return [f"{one}/{measure}" for one in splits for measure in split_measures()]


def _classes(contents: Any) -> Iterator[str]:
    """The paths of all classes that a configuration names."""
    if isinstance(contents, Mapping):
        if isinstance(path := contents.get("class_path"), str):
            yield path
        for value in contents.values():
            yield from _classes(value)
    elif isinstance(contents, list):
        for value in contents:
            yield from _classes(value)
