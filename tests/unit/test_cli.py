"""The dispatcher: which command runs, and what errors look like."""

import errno
import os

import pytest
import torch

from attn_lightning import __version__, cli
from attn_lightning.console import say
from attn_lightning.errors import AttnLightningError, ConfigurationError


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize("argument", ["-h", "--help", "help"])
def test_help_lists_every_command(capsys, argument):
    assert cli.main([argument]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in cli.COMMANDS)


def test_no_command_is_an_error_with_help(capsys):
    assert cli.main([]) == 2
    assert "usage" in capsys.readouterr().out


@pytest.mark.parametrize(("given", "meant"), [("fitt", "fit"), ("predct", "predict"), ("tset", "test")])
def test_a_misspelled_command(capsys, given, meant):
    assert cli.main([given]) == 2
    assert f"Did you mean {meant}?" in capsys.readouterr().err


def raising(error: BaseException):
    def command(arguments):
        raise error

    return command


@pytest.mark.parametrize("error", [ConfigurationError("Expected x."), AttnLightningError("Expected x.")])
def test_errors_of_the_user_are_one_line(monkeypatch, capsys, error):
    monkeypatch.setattr(cli, "_command", lambda name: raising(error))
    assert cli.main(["fit"]) == 1
    assert capsys.readouterr().err == "error: Expected x.\n"


def test_an_interruption_has_its_own_code(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_command", lambda name: raising(KeyboardInterrupt()))
    assert cli.main(["fit"]) == 130


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "--config", "x" * 300],
        ["fit", "--config", f"{'x' * 300}.yaml"],
        ["test", "--ckpt_path", "x" * 300],
        ["predict", "--text", "a", "--ckpt_path", "x" * 300],
        ["study", "x" * 300],
        ["report", "x" * 300],
        ["compare", "x" * 300, "y"],
    ],
)
def test_names_that_no_file_can_have_are_one_line(capsys, arguments):
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "of at most 255 bytes each, but got '" in error


def test_a_place_without_permission_is_one_line(monkeypatch, capsys):
    """The run folder of somebody else."""
    error = PermissionError(errno.EACCES, "Permission denied", "/their/run/evaluations")
    monkeypatch.setattr(cli, "_command", lambda name: raising(error))
    assert cli.main(["test"]) == 1
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 1
    assert "/their/run/evaluations" in shown


def test_an_output_that_nobody_reads_any_more_ends_the_command(monkeypatch, capsys):
    """`... | head -3`."""
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(cli, "_command", lambda name: lambda arguments: say("a line"))
    with os.fdopen(writer, "w") as output:
        monkeypatch.setattr("sys.stdout", output)
        assert cli.main(["experiments"]) == 141
    assert capsys.readouterr().err == ""


def test_a_broken_pipe_of_something_else_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(cli, "_command", lambda name: raising(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    with pytest.raises(BrokenPipeError):
        cli.main(["fit"])


def test_our_own_bugs_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(cli, "_command", lambda name: raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["fit"])


@pytest.mark.parametrize("command", ["fit", "test", "evaluate", "predict", "figures"])
def test_commands_that_run_a_model_flush_denormals(command):
    """Weights without a gradient decay into them, and an LSTM with such weights is several times slower."""
    torch.set_flush_denormal(False)
    tiny = torch.tensor(1e-30)
    assert tiny * 1e-10 > 0
    try:
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        assert tiny * 1e-10 == 0
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("command", ["fit", "evaluate", "study"])
def test_arguments_that_are_no_utf8_are_one_line(capsys, command):
    """The bytes of such an argument arrive as halves of surrogate pairs."""
    assert cli.main([command, "--config", "caf\udce9.yaml"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert r"caf\udce9.yaml" in err
