"""An evaluation from a module and a data module to tables: what `evaluate` and the end of `fit` have in common."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console

from attn_lightning.checks import check_numbers
from attn_lightning.console import duration
from attn_lightning.data.text import UNKNOWN_ID
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.control import control_metrics, is_text, tfidf_logistic_regression
from attn_lightning.evaluation.estimate import estimated_seconds
from attn_lightning.evaluation.folder import EvaluationFolder
from attn_lightning.evaluation.out_of_domain import (
    Subset,
    check_rationales,
    examples_for,
    not_longer,
    subset,
    teach_new_words,
)
from attn_lightning.evaluation.progress import Progress
from attn_lightning.evaluation.subject import Examples, Subject
from attn_lightning.evaluation.suite import Findings, Plan, measure
from attn_lightning.evaluation.summary import Summary, summary_markdown
from attn_lightning.files import write_json, write_text
from attn_lightning.module import AttentionModule

TABLES = "tables.md"
"""The file of an evaluation for people."""


@dataclass(frozen=True)
class EvaluationOptions:
    """How a model is evaluated.

    Args:
        split: of the data: test or validation.
        max_examples: size of a random subset of the examples; None takes all.
        max_tokens: longer texts are left out, and counted: leave-one-out and decision flips run a text once for each of
            its tokens, so that their time grows with the square of its length. None takes all.
        seed: of the subset and of all that is drawn.
        batch_size: the most examples of a pass.
        token_budget: the most tokens of a pass, padding included; memory depends on it, not on the data.
        untrained: measure the same model with fresh random weights beside it.
        linear: measure a TF-IDF logistic regression beside it (text with a training split only).
    """

    split: Literal["test", "validation"] = "test"
    max_examples: int | None = None
    max_tokens: int | None = 10_000
    seed: int = 0
    batch_size: int = 128
    token_budget: int = 2**16
    untrained: bool = True
    linear: bool = True

    def __post_init__(self) -> None:
        check_numbers(at_least=1, max_examples=self.max_examples, batch_size=self.batch_size)
        check_numbers(at_least=1, max_tokens=self.max_tokens, token_budget=self.token_budget)
        check_numbers(at_least=0, seed=self.seed)


@dataclass(frozen=True)
class EvaluatedModel:
    """What is evaluated.

    Attributes:
        module: with its weights, on the device where it is to run.
        data: prepared and set up; with `examples(split)`, `label_names` and `manifest`.
        checkpoint: what tells this model from another, the SHA-256 of its file for example.
        name: of the model in the folder's name, such as `best`.
        own: whether the data is that of the training, so that its training split is the model's own.
    """

    module: AttentionModule
    data: Any
    checkpoint: str
    name: str
    own: bool = True


def evaluate(
    evaluated: EvaluatedModel,
    plan: Plan,
    options: EvaluationOptions,
    parent: Path,
    console: Console | None,
    quiet: bool = False,
    waits: bool = False,
) -> tuple[Summary, Path]:
    """Measure a model on a split and keep everything in a folder below `parent`; goes on where an earlier call stopped.

    Args:
        evaluated: model and data.
        plan: what to measure.
        options: how.
        parent: `<run folder>/evaluation`.
        console: where progress is shown; None for nowhere.
        quiet: show bars, which leave nothing behind, but no line per part.
        waits: for a process that makes the same evaluation at this moment, instead of refusing to.

    Returns:
        The summary, and the folder: its `tables.md` has all tables, its `summary.json` all numbers.

    Raises:
        ConfigurationError: no such split, other classes, or another process is at work in the folder.
        DataFormatError: a rationale does not fit its text.
        NumericalError: the model predicts NaN.
    """
    subject, notes = subject_of(evaluated, options)
    corpus = getattr(evaluated.data, "corpus", type(evaluated.data).__name__.lower())
    name = f"{evaluated.name}-{corpus}-{options.split}"
    if options.max_examples is not None:
        name += f"-{len(subject.examples)}"
    # By content and not by path: a file that was changed in place is another data set.
    content = evaluated.data.manifest["splits"][options.split]["sha256"]
    # Without batch size and token budget, which change no number: what ran out of memory goes on with smaller ones.
    identity = {
        "checkpoint": evaluated.checkpoint,
        "corpus": corpus,
        "split": options.split,
        "sha256": content,
        "examples": len(subject.examples),
        "seed": options.seed,
    }
    # Beside the texts, as the same ones can be marked anew; and some parts learn from the training split.
    if subject.rationales is not None:
        identity["rationales"] = subject.rationales
    if not evaluated.own:
        identity["own"] = False
    elif "labeled" in evaluated.data.manifest:
        identity["labeled"] = evaluated.data.manifest["labeled"]["sha256"]
    progress = Progress(console, quiet=quiet)
    with EvaluationFolder(parent, name, identity, waits) as folder:
        for note in notes:
            progress.note(note)
        if console is not None and not quiet:
            _say_how_long(subject, plan, folder, options.untrained, progress)
        trained = measure(subject, plan, folder.model, progress)
        untrained = Findings()
        # The same measurements on random weights: what a model of this shape gets without having learned anything.
        if options.untrained:
            other = replace(subject, model=_fresh(evaluated.module, options.seed))
            teach_new_words(other.model, subject.examples)
            untrained = measure(other, plan, folder.untrained, progress.about("untrained model: "))
        linear = _linear(evaluated, subject, options, folder.path) if options.linear else {}
        controls = [name for name, explainer in plan.explainers.items() if explainer.is_control]
        summary = Summary(plan.families, trained, untrained, linear, controls)
        write_json(folder.path / "summary.json", {**identity, "notes": notes, **summary.to_json()})
        write_text(folder.path / TABLES, summary_markdown(summary, f"{name}: {len(subject.examples):,} examples"))
    return summary, folder.path


def subject_of(evaluated: EvaluatedModel, options: EvaluationOptions) -> tuple[Subject, list[str]]:
    """What is measured, and sentences that a reader of the results must know.

    Raises:
        ConfigurationError: the data has no such split, or is no data for this model.
        DataFormatError: a rationale marks a token that does not exist.
    """
    module, data = evaluated.module, evaluated.data
    assert module.spec is not None
    assert module.backbone is not None
    splits = data.manifest["splits"]
    if options.split not in splits:
        raise ConfigurationError(
            f"Expected a split out of {', '.join(splits)}, but got {options.split!r}; the data has no such split."
        )
    names = module.spec.label_names
    every, notes = examples_for(data, options.split, module.tokenizer_state, names)
    if module.spec.has_question != getattr(data, "has_question", False):
        wanted = "pairs of texts" if module.spec.has_question else "single texts"
        raise ConfigurationError(f"Expected {wanted} for this checkpoint, but got others; use another `--data`.")
    teach_new_words(module.backbone, every)
    # The choice first, so that the texts of a seed are the same for every `max_tokens`.
    examples, left_out = not_longer(subset(every, options.max_examples, options.seed), options.max_tokens)
    notes = [*notes, *left_out]
    rationales = check_rationales(examples)
    training: Examples | None = None
    # The training split of other data is nothing that the model has learned from.
    if evaluated.own and "train" in splits:
        training = examples_for(data, "train", module.tokenizer_state, names)[0]
        if "labeled" in data.manifest:
            # What is fitted beside the model, as its TF-IDF control is, learns from the labels that it was shown.
            training = Subset(training, data.labeled_rows)
    return Subject(
        model=module.backbone,
        examples=examples,
        num_classes=module.spec.num_classes,
        erased=None if module.spec.segment_shape else UNKNOWN_ID,
        training=training,
        batch_size=options.batch_size,
        token_budget=options.token_budget,
        seed=options.seed,
        device=next(module.backbone.parameters()).device,
        rationales=rationales,
    ), notes


def _say_how_long(subject: Subject, plan: Plan, folder: EvaluationFolder, untrained: bool, progress: Progress) -> None:
    """A line with the time that all missing parts will take, before the first of them begins."""
    # An untrained model costs what the trained one does.
    both = [folder.model, folder.untrained] if untrained else [folder.model]
    seconds = sum(estimated_seconds(subject, plan, parts) for parts in both)
    if seconds:
        progress.note(f"this will take about {duration(seconds)}; a stopped evaluation goes on with its next part")


def _fresh(module: AttentionModule, seed: int) -> Any:
    """The model of the module before any training: the same classes and options, random weights of their own seed."""
    # Seeded by the evaluation and not by the run: two runs are compared with the same untrained model.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = module.untrained_backbone()
    return backbone.to(module.device).eval()


def _linear(
    evaluated: EvaluatedModel, subject: Subject, options: EvaluationOptions, folder: Path
) -> dict[str, float | None]:
    """Metrics of the linear control on exactly the examples that were evaluated; none for segments or other data."""
    data = evaluated.data
    if not (is_text(data) and evaluated.own):
        return {}
    rows = subject.examples.rows if isinstance(subject.examples, Subset) else None
    # All test texts are what the control of the run was measured on, so its cached numbers serve.
    if rows is None and options.split == "test":
        return control_metrics(data)
    path = folder / "linear.json"
    if path.exists():
        stored: dict[str, float | None] = json.loads(path.read_text("utf-8"))
        return stored
    texts, labels = data.whole_texts(options.split), list(data.dataset(options.split)["label"])
    chosen = range(len(texts)) if rows is None else rows.tolist()
    measured = [texts[row] for row in chosen], [labels[row] for row in chosen]
    found = tfidf_logistic_regression(data.training_examples(), measured, subject.num_classes)
    # JSON has no NaN.
    metrics = {name: value if np.isfinite(value) else None for name, value in found.items()}
    write_json(path, metrics)
    return metrics
