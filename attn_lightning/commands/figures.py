"""`figures`: the figures of a checkpoint or of a study, as PNG and SVG; nothing is overwritten."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule
from matplotlib.figure import Figure

from attn_lightning import run_folder
from attn_lightning.commands.arguments import add_trust, split_trusted
from attn_lightning.commands.evaluate import load, parse_with_run_data, prepared_data
from attn_lightning.commands.parsing import OneLineErrorParser, class_change_resets_arguments
from attn_lightning.commands.validation import Validator
from attn_lightning.console import say
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.runner import EvaluatedModel, EvaluationOptions, subject_of
from attn_lightning.report.model_figures import model_figures
from attn_lightning.report.study_figures import study_figures
from attn_lightning.report.style import write
from attn_lightning.study.expansion import expand
from attn_lightning.study.named import named_study
from attn_lightning.study.running import StudyRun

FOLDER = "figures"
_CHECKPOINT_ONLY = ("--data", "--split", "--max_examples", "--seed", "--device", "--trust")
_STUDY_ONLY = ("--root", "--metrics")


def _parser() -> OneLineErrorParser:
    parser = OneLineErrorParser(
        prog="python -m attn_lightning figures", description=__doc__, allow_abbrev=False, exit_on_error=True
    )
    parser.add_argument(
        "--ckpt_path", type=str | None, help="a checkpoint of a run folder: what it looks at, and what it says"
    )
    parser.add_argument(
        "--study",
        type=str | None,
        help="a study file, or the name of one in experiments/studies: its metrics, run by run",
    )
    parser.add_argument(
        "--output",
        type=Path | None,
        help="folder of the files (default: `figures` in the run folder or in the folder of the study)",
    )
    parser.add_argument(
        "--split", type=str, default="test", choices=["test", "validation"], help="with --ckpt_path: of the data"
    )
    parser.add_argument(
        "--max_examples",
        type=int | None,
        help="with --ckpt_path: size of a random subset; null takes all examples",
    )
    parser.add_argument("--seed", type=int, default=0, help="with --ckpt_path: of the subset")
    parser.add_argument("--device", type=str, default="cpu", help="with --ckpt_path: where the model runs: cpu, cuda")
    add_trust(parser)
    parser.add_argument("--root", type=Path, default=Path("runs"), help="with --study: folder of all runs")
    parser.add_argument(
        "--metrics",
        type=list[str],
        default=[],
        help="with --study: other metrics than its own, as [test/accuracy, ...]",
    )
    parser.add_subclass_arguments(LightningDataModule, "data", required=False)
    return parser


def figures_command(arguments: Sequence[str]) -> int:
    """Run `figures`.

    Args:
        arguments: its options.

    Returns:
        0; errors are exceptions.
    """
    # Known before parsing: options of the other kind have defaults, so that the parser could not tell if they were
    # given.
    of_study = any(argument.split("=")[0] == "--study" for argument in arguments)
    _refuse_options_of_the_other(arguments, of_study)
    parser = _parser()
    arguments, trusted = split_trusted(arguments)
    with class_change_resets_arguments():
        options, _ = parse_with_run_data(parser, arguments, trusted)
    if (options.ckpt_path is None) == (options.study is None):
        raise ConfigurationError("Expected either `--ckpt_path` or `--study`, but got both or none; give one of them.")
    figures, reasons, folder = _of_study(options) if of_study else _of_checkpoint(parser, options, trusted)
    for name, reason in reasons.items():
        say(f"not drawn: {name}: {reason}")
    if not figures:
        raise ConfigurationError(f"Expected something to draw, but {'; '.join(reasons.values())}.")
    for path in write(figures, options.output or folder):
        say(f"figure: {path}")
    return 0


def _refuse_options_of_the_other(arguments: Sequence[str], of_study: bool) -> None:
    own, other = ("--study", _CHECKPOINT_ONLY) if of_study else ("--ckpt_path", _STUDY_ONLY)
    for argument in arguments:
        if argument.split("=")[0].split(".")[0] in other:
            raise ConfigurationError(f"Expected only options that go with `{own}`, but got `{argument}`; leave it out.")


Drawn = tuple[Mapping[str, Figure], Mapping[str, str], Path]


def _of_checkpoint(parser: OneLineErrorParser, options: Namespace, trusted: Collection[str]) -> Drawn:
    checkpoint = Path(options.ckpt_path)
    # The model before the data, which may take minutes to prepare for a checkpoint that cannot be read.
    module = load(checkpoint, options.device, trusted)
    data: Any = prepared_data(parser, options)
    evaluation = EvaluationOptions(split=options.split, max_examples=options.max_examples, seed=options.seed)
    subject, notes = subject_of(EvaluatedModel(module, data, "", checkpoint.stem, own=False), evaluation)
    for note in notes:
        say(f"note: {note}")
    run, corpus = run_folder.of_checkpoint(checkpoint), data.manifest["name"]
    assert module.spec is not None
    title = f"{run.parent.name}/{run.name} {checkpoint.stem}, {corpus} {options.split}"
    figures, reasons = model_figures(subject, module.spec.label_names, title)
    # In the name, because figures of other data or another split of the same run may lie beside it.
    prefix = "_".join([checkpoint.stem, corpus, options.split])
    return {f"{prefix}_{name}": figure for name, figure in figures.items()}, reasons, run / FOLDER


def _of_study(options: Namespace) -> Drawn:
    # Through the file of the study and not the record in its folder: figures are of what the file asks for now.
    study = named_study(options.study)
    run = StudyRun(study, expand(study), options.root / study.name, *Validator().both)
    results = run.states()
    if not any(found.state == "complete" for _, found in results):
        raise ConfigurationError(
            f"Expected finished runs of {study.name} in {run.root}, but there are none; run `study {options.study}` "
            "first, or name its folder with `--root`."
        )
    return *study_figures(study, results, options.metrics), run.root / FOLDER
