"""The command line: which command runs, and how an error of the user's is shown. Imports nothing heavy itself."""

import errno
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence

from attn_lightning import __version__
from attn_lightning.console import harmless_messages, harmless_warnings, say
from attn_lightning.errors import AttnLightningError, ConfigurationError, did_you_mean
from attn_lightning.signals import Stopped, stopping_raises
from attn_lightning.startup import lean_torchmetrics

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""What no program can mend by itself, and what no traceback explains."""

_OF_PERMISSIONS = (errno.EACCES, errno.EPERM)
"""Somebody else's run folder, which can be read but takes no results, above all."""

COMMANDS = {
    "fit": "train, keep the best epoch, test it and leave a complete run folder",
    "validate": "measure a checkpoint on the validation split",
    "test": "measure a checkpoint on the test split",
    "evaluate": "faithfulness, plausibility, robustness and controls of a checkpoint, on any data; resumes",
    "predict": "label, probability and attention per word for texts or files, from a checkpoint alone",
    "experiments": "list methods, data and special experiments: what `--config` takes by name",
    "study": "run methods × data × seeds of a file in experiments/studies, resume it, and show its tables",
    "claims": "what papers say, held against the finished runs of studies, with a verdict for each",
    "search": "the best options of a sweep file, found with Optuna on this machine; resumes",
    "sweep": "check a W&B sweep file against the options of `fit`, then register it for agents",
    "report": "one HTML page of runs and studies with their documents, and tables for a paper beside it",
    "compare": "two runs on the same documents: paired tests, flipped documents, agreement of their attention",
    "figures": "decision regions, attention over mosaics and its density of a checkpoint; strip plots of a study",
}


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return (
        "usage: python -m attn_lightning COMMAND [options]\n\n"
        f"commands:\n{lines}\n\n"
        "examples:\n"
        "  python -m attn_lightning fit --config ivat_planted --method.epsilon=2\n"
        "  python -m attn_lightning fit --help                          every option\n"
        "  python -m attn_lightning fit --method.help AttentionIVAT     the card of a method\n"
        "  python -m attn_lightning fit --data.help IMDB                the options of a data set\n"
        "  python -m attn_lightning predict --ckpt_path RUN/checkpoints/best.ckpt --text 'A dull film'\n"
        "  python -m attn_lightning evaluate --ckpt_path RUN/checkpoints/best.ckpt --suite faithfulness,plausibility\n"
        "  python -m attn_lightning study planted_smoke --jobs 2\n"
        "  python -m attn_lightning report runs/ivat_planted/version_0 runs/vanilla_planted/version_0 --output report\n"
        "  python -m attn_lightning compare runs/vanilla_sst/version_0 runs/ivat_sst/version_0 --output report\n"
        "  python -m attn_lightning figures --ckpt_path RUN/checkpoints/best.ckpt\n"
    )


def _command(name: str) -> Callable[[Sequence[str]], int]:
    """Import a command only when it runs: help and errors must not wait for torch."""
    # One import per command: most of them need no torch, and would wait seconds for it.
    if name == "experiments":
        from attn_lightning.commands.experiments import experiments_command

        return experiments_command
    if name == "study":
        from attn_lightning.commands.study import study_command

        return study_command
    if name == "claims":
        from attn_lightning.commands.claims import claims_command

        return claims_command
    if name == "search":
        from attn_lightning.commands.search import search_command

        return search_command
    if name == "sweep":
        from attn_lightning.commands.sweep import sweep_command

        return sweep_command
    if name == "report":
        from attn_lightning.commands.report import report_command

        return report_command
    if name == "compare":
        from attn_lightning.commands.compare import compare_command

        return compare_command
    from attn_lightning.numerics import flush_denormals

    # Before torch starts threads, which take the setting from the one that starts them.
    flush_denormals()
    if name == "predict":
        from attn_lightning.commands.predict import predict_command

        return predict_command
    if name == "evaluate":
        from attn_lightning.commands.evaluate import evaluate_command

        return evaluate_command
    if name == "figures":
        from attn_lightning.commands.figures import figures_command

        return figures_command
    from attn_lightning.commands.fit import training_command

    return lambda arguments: training_command([name, *arguments])


def _check_encoding(arguments: Sequence[str]) -> None:
    """Bytes that are no UTF-8 could not be written into the configuration of a run.

    Raises:
        ConfigurationError: an argument has some.
    """
    for argument in arguments:
        if any("\ud800" <= character <= "\udfff" for character in argument):
            raise ConfigurationError(
                f"Expected arguments in UTF-8, but got {argument!a}; rename the file or the value."
            )


def _nobody_reads() -> bool:
    """Whether the other end of the standard output is gone, as `| head` is once it has its lines."""
    try:
        descriptor = sys.stdout.fileno()
    except OSError:  # in a notebook or a test it is no file
        return False
    looked_at = select.poll()
    looked_at.register(descriptor, 0)
    if not looked_at.poll(0):
        return False
    # What is left would be written once more when Python ends, and fail with a message then.
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    return True


def main(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: the command line without the program's name.

    Returns:
        The exit code: 0 success, 1 an error during the run, 2 unusable arguments, 130 interrupted, 141 nobody reads its
        output, 143 terminated.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(__version__)
        return 0
    if arguments[0] not in COMMANDS:
        hint = did_you_mean(arguments[0], COMMANDS, most=1)
        say(f"error: Expected a command, but got {arguments[0]!r}.{hint}\n\n{_help()}", error=True)
        return 2
    lean_torchmetrics()
    try:
        with stopping_raises(), harmless_warnings(), harmless_messages():
            if arguments[0] != "predict":  # which takes any text and counts what it replaces
                _check_encoding(arguments)
            return _command(arguments[0])(arguments[1:])
    except AttnLightningError as error:
        say(f"error: {error}", error=True)
        return 1
    except Stopped as stopped:
        say(str(stopped), error=True)
        return stopped.exit_code
    except KeyboardInterrupt:
        say("interrupted", error=True)
        return 130
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            # Every command asks of every path that it is given whether there is such a file.
            name = str(error.filename or "")
            say(
                f"error: Expected a path with names that the system can hold, of at most 255 bytes each, but got "
                f"{name[:60]!r}... of {len(name):,} characters; correct it.",
                error=True,
            )
            return 1
        if error.errno == errno.EPIPE and _nobody_reads():
            return 128 + signal.SIGPIPE
        if error.errno in _OF_PERMISSIONS:
            say(
                f"error: Expected to be allowed to read and write here, but got: {error}; change the permissions, or "
                "copy what it belongs to, such as a run folder, to a place of your own.",
                error=True,
            )
            return 1
        if error.errno not in _OF_THE_DISK:
            raise
        advice = "make room and run the same command again"
        say(f"error: Expected to be able to write, but got: {error}; {advice}.", error=True)
        return 1
