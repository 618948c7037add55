"""`evaluate`: every measurement of a checkpoint, on its own test split or on other data."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule

from attn_lightning import run_folder
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.checkpoint import checkpoint_contents, read_checkpoint
from attn_lightning.checkpoint.trust import check_configuration
from attn_lightning.commands.arguments import add_trust, split_trusted
from attn_lightning.commands.parsing import OneLineErrorParser, class_change_resets_arguments
from attn_lightning.commands.processes import is_first, is_one_of_several
from attn_lightning.console import say, show_messages, stdout_console
from attn_lightning.errors import ConfigurationError, one_line, own_cause
from attn_lightning.evaluation.catalog import (
    DEFAULT_EXPLAINERS,
    FAMILIES,
    SUITES,
    chosen_explainers,
    chosen_families,
)
from attn_lightning.evaluation.explainers.available import explainers as available_explainers
from attn_lightning.evaluation.results import print_tables
from attn_lightning.evaluation.runner import TABLES, EvaluatedModel, EvaluationOptions, evaluate
from attn_lightning.evaluation.suite import Plan
from attn_lightning.files import file_digest
from attn_lightning.module import AttentionModule
from attn_lightning.study.data_files import is_data_file


def _parser() -> OneLineErrorParser:
    parser = OneLineErrorParser(
        prog="python -m attn_lightning evaluate", description=__doc__, allow_abbrev=False, exit_on_error=True
    )
    parser.add_argument(
        "--ckpt_path", type=str, required=True, help="a checkpoint of a run folder; the results go into that folder"
    )
    parser.add_argument(
        "--suite",
        type=str,
        default="all",
        help=f"what to measure, separated by commas: {', '.join([*SUITES, *FAMILIES])}",
    )
    parser.add_argument(
        "--explainers",
        type=str,
        default=DEFAULT_EXPLAINERS,
        help=f"the explanations to judge, separated by commas: all, {', '.join(available_explainers())}",
    )
    parser.add_class_arguments(EvaluationOptions, None)
    parser.add_argument(
        "--verbose", action="store_true", help="print every table instead of ten rows; those of one family always are"
    )
    parser.add_argument("--device", type=str, default="cpu", help="where the model runs: cpu, cuda")
    add_trust(parser)
    parser.add_argument(
        "--compare",
        type=list[str],
        default=[],
        help="checkpoints of other runs on the same data (other seeds, an adversary, uniform attention) whose "
        "attention and predictions are set against this one's, as [RUN/checkpoints/best.ckpt, ...]",
    )
    parser.add_subclass_arguments(LightningDataModule, "data", required=False)
    for name, family in FAMILIES.items():
        parser.add_class_arguments(family, name, skip={"others"})
        assert parser.groups is not None
        # From the declarations of the metrics: what `--help` says of a number is what its table says.
        parser.groups[name].description = "; ".join(measure.line for measure in family.measures.values())
    return parser


def evaluate_command(arguments: Sequence[str]) -> int:
    """Run `evaluate`.

    Args:
        arguments: its options.

    Returns:
        0; errors are exceptions.
    """
    show_messages()
    parser = _parser()
    arguments, trusted = split_trusted(arguments)
    with class_change_resets_arguments():
        options, own = parse_with_run_data(parser, arguments, trusted)
    checkpoint = Path(options.ckpt_path)
    module = load(checkpoint, options.device, trusted)
    # All are loaded before anything is measured: a bad path at the end of the list must not cost an hour.
    names = labels(options.compare)
    others = {name: _other(Path(path), options.device, module, trusted) for path, name in names.items()}
    family_options = {name: dict(options[name].items()) for name in FAMILIES if options.get(name) is not None}
    plan = Plan(chosen_families(options.suite, family_options, others), chosen_explainers(options.explainers))
    evaluation = EvaluationOptions(**{name: options[name] for name in vars(EvaluationOptions())})
    # Part of the key under which finished parts are found again: another checkpoint under the old name is other work.
    digest = "+".join(file_digest(Path(path)) for path in (checkpoint, *options.compare))
    evaluated = EvaluatedModel(module, prepared_data(parser, options), digest, checkpoint.stem, own)
    console = stdout_console()
    parent = run_folder.of_checkpoint(checkpoint) / "evaluation"
    # Of several processes with the same command one works, and the others find its parts.
    summary, folder = evaluate(
        evaluated, plan, evaluation, parent, console if is_first() else None, waits=is_one_of_several()
    )
    if is_first():
        # Who asks for one family wants its table.
        print_tables({}, summary, options.verbose or len(plan.families) == 1, console)
    say(f"evaluation: {folder}\nall tables: {folder / TABLES}")
    return 0


def parse_with_run_data(
    parser: OneLineErrorParser, arguments: list[str], trusted: Collection[str]
) -> tuple[Namespace, bool]:
    """The options, with the data of the run where none is named; and whether the data is the run's own."""
    named = [value for value in arguments if value.split("=")[0] == "--data"]
    if (path_of_data := _value(arguments, "--data")) is not None and is_data_file(path_of_data):
        raise ConfigurationError(
            f"Expected `--data` of `evaluate` to be a class or a file of its options, but got {path_of_data}; use "
            f"`--data.test=FILE`, which is read with the columns and classes of the run, or `--data=TextFiles` with "
            "`--data.train` and `--data.test`."
        )
    asks = any(value in ("-h", "--help") or ".help" in value for value in arguments)
    if not asks:
        path = _value(arguments, "--ckpt_path")
        if path is not None:
            # Looked into before its configuration is: a file of somebody else may name classes to import.
            checkpoint_contents(read_checkpoint(Path(path)))
            data = _run_data(Path(path), required=not named)
            check_configuration({"data": data}, trusted)
            # As defaults, so that options of `--data.` on the command line change the run's own data.
            parser.set_defaults({"data": data})
    return parser.parse_args(arguments), not named


def _value(arguments: Sequence[str], option: str) -> str | None:
    for place, argument in enumerate(arguments):
        if argument.startswith(f"{option}="):
            return argument.split("=", 1)[1]
        if argument == option and place + 1 < len(arguments):
            return arguments[place + 1]
    return None


def _run_data(checkpoint: Path, required: bool) -> Any:
    config = run_folder.of_checkpoint(checkpoint) / run_folder.CONFIG
    if config.exists():
        return run_folder.read_config(config).get("data")
    if required:
        raise ConfigurationError(
            f"Expected {config} beside the checkpoint, which says on what data it was trained, but there is none; "
            "name the data with `--data`."
        )
    return None


def prepared_data(parser: OneLineErrorParser, options: Namespace) -> Any:
    """The data module of the options, set up for a model that has its weights.

    Raises:
        ConfigurationError: it cannot be made as configured, or it has no `examples(split)`.
    """
    try:
        data = parser.instantiate(options).data
    except ValueError as error:
        if (cause := own_cause(error)) is not None:
            raise cause from None
        raise
    if not hasattr(data, "examples"):
        raise ConfigurationError(
            f"Expected a data module with `examples(split)`, but {type(data).__name__} has none; derive it from "
            "TextDataModule, or give it that function."
        )
    if hasattr(data, "makes_word_vectors"):
        # The checkpoint holds the word vectors, and a pool without labels is for training.
        data.makes_word_vectors = False
    data.prepare_data()
    # The stage of Lightning that every data module knows; rows of other splits are opened by it as well.
    data.setup("test")
    return data


def load(checkpoint: Path, device: str, trusted: Collection[str]) -> AttentionModule:
    """The module of a checkpoint, in eval mode on the device.

    Raises:
        ConfigurationError: a file that is missing, damaged, of another version or of a class that is not trusted, or
            a device that is not there.
    """
    module = AttentionModule.load_from_checkpoint(checkpoint, trusted=trusted, map_location="cpu").eval()
    try:
        return module.to(torch.device(device))
    # torch without CUDA fails with an AssertionError, with another device in several other ways.
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(
            f"Expected to be able to use device {device!r}, but got: {one_line(error)}; use `--device cpu`."
        ) from error


def _other(checkpoint: Path, device: str, module: AttentionModule, trusted: Collection[str]) -> Backbone:
    other = load(checkpoint, device, trusted)
    # Word 17 must be the same word for both, or their weights are of other texts.
    if other.tokenizer_state != module.tokenizer_state:
        raise ConfigurationError(
            f"Expected `--compare` to name runs on the same data with the same vocabulary, but {checkpoint} has "
            "another one; train it on the same data."
        )
    assert other.backbone is not None
    return other.backbone


def labels(paths: Sequence[str]) -> dict[str, str]:
    """`<experiment>/<version>/<checkpoint>` of each checkpoint, by its path; no two of different files are the same.

    Runs of one name under two roots are told apart by as many of the folders above as that takes.

    Args:
        paths: of checkpoints; what is named twice is there once.
    """
    files = {Path(path).resolve(): path for path in reversed(paths)}
    parts = {file: (*run_folder.of_checkpoint(file).parts, file.stem) for file in files}

    def label(file: Path) -> str:
        for length in range(3, len(parts[file]) + 1):
            shown = parts[file][-length:]
            if not any(other[-length:] == shown for name, other in parts.items() if name != file):
                return "/".join(shown)
        # The same name within one run folder: in `checkpoints` and beside it.
        return str(file)

    return {path: label(file) for file, path in reversed(files.items())}
