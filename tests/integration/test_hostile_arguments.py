"""Arguments and paths with control characters: nothing that a command says may steer the terminal."""

import unicodedata

import pytest

from attn_lightning.cli import COMMANDS

ESCAPES = "\x1b]0;title\x07\x1b[31mred\x9b2J\r\u202e\u2066"

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"

HOSTILE = {
    "command alone": [ESCAPES],
    "unknown option": [f"--{ESCAPES}=1"],
    "checkpoint": ["--ckpt_path", f"{ESCAPES}/best.ckpt"],
    "configuration": ["--config", f"{ESCAPES}.yaml"],
    "value": ["--seed_everything", ESCAPES],
    "class": [f"--data={ESCAPES}", f"--method={ESCAPES}"],
    "option of a class": ["--data=Planted", f"--data.{ESCAPES}=1"],
    "value of a class": ["--data=Planted", f"--data.batch_size={ESCAPES}"],
    "word of a choice": ["--data=CSV", f"--data.train={ESCAPES}.csv", f"--run.suite={ESCAPES}"],
    "folder": ["planted_smoke", "--root", ESCAPES, f"--jobs={ESCAPES}"],
    "trust": [f"--trust={ESCAPES}", f"--device={ESCAPES}"],
}


def steers(text: str) -> set[str]:
    """The characters of a text that a terminal takes for a command, or that turn the order of what follows."""
    return {c for c in text if c != "\n" and (unicodedata.category(c) == "Cc" or c in BIDI)}


@pytest.mark.parametrize("command", [*COMMANDS, "a command"])
def test_no_command_hands_control_characters_on(cli, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    for name, arguments in HOSTILE.items():
        outcome = cli(command if command in COMMANDS else ESCAPES, *arguments)
        assert outcome.code in (1, 2), (name, outcome)
        assert outcome.err.startswith("error: "), (name, outcome.err)
        assert "Traceback" not in outcome.err, name
        assert not steers(outcome.out + outcome.err), (name, outcome.err)


def test_a_run_folder_with_such_a_name_is_shown_harmless(tiny_fit, cli, tmp_path):
    root = tmp_path / "a\x1b[31mred\u202e"
    outcome = tiny_fit("--run.root", root, "--run.suite=none", "--run.control=false", "--trainer.max_epochs=1")
    assert outcome.code == 0
    said = outcome.out + outcome.err
    checkpoint = root / "ivat_planted" / "version_0" / "checkpoints" / "best.ckpt"
    for options in (["test"], ["evaluate", "--suite=sparsity", "--untrained=false", "--linear=false"], ["figures"]):
        outcome = cli(options[0], "--ckpt_path", checkpoint, *options[1:])
        assert outcome.code == 0, outcome.err
        said += outcome.out + outcome.err
    assert "red" in said
    assert not steers(said)
