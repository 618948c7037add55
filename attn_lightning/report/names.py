"""Metrics as readers of the field know them: a name for every key that runs record, with range and direction."""

import re
from dataclasses import dataclass

from attn_lightning.study.table import direction, measure_of

_NAMES = {
    "accuracy": "Accuracy",
    "f1": "F1",
    "macro_f1": "Macro F1",
    "auroc": "ROC-AUC",
    "roc_auc": "ROC-AUC",
    "average_precision": "Average precision",
    "auprc": "AUPRC",
    "log_loss": "Log loss",
    "brier": "Brier score",
    "ece": "Calibration error (ECE)",
    "kendall": "Kendall's τ",
    "kendall_significant": "Kendall's τ, share with p < .05",
    "spearman": "Spearman's ρ",
    "pearson": "Pearson's r",
    "jensen_shannon": "Jensen-Shannon divergence",
    "top_k_overlap": "Top-k overlap",
    "comprehensiveness": "Comprehensiveness",
    "sufficiency": "Sufficiency",
    "aopc_comprehensiveness": "Comprehensiveness (AOPC)",
    "aopc_sufficiency": "Sufficiency (AOPC)",
    "soft_comprehensiveness": "Soft comprehensiveness",
    "soft_sufficiency": "Soft sufficiency",
    "decision_flip": "Decision flip",
    "post_hoc_accuracy": "Post-hoc accuracy",
    "teacher_agreement": "Agreement with the teacher",
    "evidence_recall": "Evidence words selected",
    "token_f1": "Token F1",
    "token_f1_micro": "Token F1 (micro)",
    "iou_f1": "IOU F1",
    "iou_f1_micro": "IOU F1 (micro)",
    "rationale_mass": "Attention mass on the rationale",
    "top_1_hit": "Top token in the rationale",
    "evidence_mass": "Attention mass on the evidence",
    "evidence_hit": "Top token in the evidence",
    "ftpt": "FTPT",
    "ffpt": "FFPT",
    "ftpf": "FTPF",
    "ffpf": "FFPF",
    "interpretability": "Interpretability (FTPT / accuracy)",
    "evidence_weight": "Attention on the evidence",
    "entropy": "Entropy of attention",
    "relative_entropy": "Relative entropy of attention",
    "effective_length": "Effective length",
    "num_above_0.01": "Weights above 0.01",
    "support_size": "Support size",
    "one_hot_distance": "Distance from one-hot",
    "gini": "Gini coefficient",
    "conicity": "Conicity",
    "absolute_conicity": "Conicity (absolute)",
    "fit_seconds": "Time of fitting",
    "cpu_seconds": "CPU time of fitting",
    "train_seconds": "Time of training",
    "step_seconds": "Time of steps",
    "train_tokens_per_second": "Training speed",
    "peak_memory_mib": "Peak memory",
}
_AGREEMENT = "agreement"
"""The family that compares attention with other explanations."""

_OTHERS = {"gradient": "to gradient", "hidden": "to hidden × gradient"}
_KEY = re.compile(r"(?P<place>[^/]+)/(?P<path>[^\[]+)(?:\[(?P<setting>.*)\])?")


@dataclass(frozen=True)
class MetricName:
    """How a metric is shown.

    Attributes:
        key: as runs record it, `evaluation/faithfulness/attention/aopc_comprehensiveness`.
        name: the field's name, `Comprehensiveness (AOPC)`, with explainer and setting where they say more.
        meaning: in words that need no formula; empty for a metric of the user's own.
        range: such as `0..1`.
        better: `higher`, `lower`, `-` where neither is, or `not declared`.
        higher_is_better: direction; None where neither is better.
    """

    key: str
    name: str
    meaning: str
    range: str
    better: str
    higher_is_better: bool | None

    @property
    def arrow(self) -> str:
        """`↑`, `↓` or nothing."""
        # Of a metric without a direction no arrow is drawn: one would tell readers that more of it is good.
        return {True: "↑", False: "↓", None: ""}[self.higher_is_better]


def metric_name(key: str) -> MetricName:
    """What there is to say of a metric, by the key under which runs record it."""
    measure = measure_of(key)
    if measure is None:
        # A metric of the user's own: nothing is known of it, and its direction is what the table says of undeclared
        # ones.
        return MetricName(key, _name(key), "", *direction(key), higher_is_better=None)
    return MetricName(key, _name(key), measure.meaning, measure.span, measure.better, measure.higher_is_better)


def _name(key: str) -> str:
    # A name that is not of ours (a callback of the user's) is shown as it is.
    found = _KEY.fullmatch(key)
    if found is None:
        return key
    place, path, setting = found["place"], found["path"], found["setting"]
    if place == "evaluation":
        family, *explainer, metric = path.split("/")
        # In this family the explainer is what attention is compared with, and not what is measured.
        if family == _AGREEMENT and explainer:
            compared = _OTHERS.get(explainer[0], f"to {explainer[0]}")
            return ", ".join([f"{measure_name(metric)}, attention {compared}", *_settings(setting)])
        return ", ".join([measure_name(metric), *_explained_by(explainer), *_settings(setting)])
    # "Mean over examples" goes without saying in a table of means.
    name = path.removesuffix("_mean")
    for other, shown in _OTHERS.items():
        if name.startswith(f"{other}_") and name.removeprefix(f"{other}_") in _NAMES:
            name = f"{measure_name(name.removeprefix(f'{other}_'))}, attention {shown}"
    shown = measure_name(name)
    # Only costs carry a unit that a reader cannot guess from the name.
    if place == "cost" and (cost := measure_of(key)) is not None:
        return f"{shown} ({cost.unit})"
    return f"{shown} (validation)" if place == "val" else shown


def measure_name(name: str) -> str:
    """The field's name of a measure, whatever it is taken of: `Kendall's τ` for `kendall`."""
    # A name that is missing above, such as one of a callback of the user's, is readable all the same.
    return _NAMES.get(name, name.replace("_", " "))


def _explained_by(explainer: list[str]) -> list[str]:
    """Attention is what the package is about, and goes without saying."""
    return [name.replace("_", " ") for name in explainer if name != "attention"]


def _settings(setting: str | None) -> list[str]:
    return [part.replace("_", " ").replace("=", " ") for part in setting.split(",")] if setting else []
