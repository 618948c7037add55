"""Which folder a command writes into; what is done in it is tested with whole runs."""

import json
from pathlib import Path

import pytest
from jsonargparse import Namespace

from attn_lightning import run_folder
from attn_lightning.commands.run_choice import RunChoice, choose
from attn_lightning.errors import ConfigurationError

PARTS = {"test": False, "control": False, "suite": "none"}


class Same:
    """Finds these differences in every folder."""

    def __init__(self, *names):
        self.names = list(names)

    def differences(self, folder):
        return self.names


def options(root: Path, ckpt_path=None, **run):
    return Namespace(
        ckpt_path=None if ckpt_path is None else str(ckpt_path),
        trainer=Namespace(max_epochs=3),
        run=Namespace(**{"root": root, "name": "mine", "version": None, "resume": "never", **PARTS, **run}),
    )


@pytest.fixture
def complete(tmp_path):
    """The folder of a run that is complete."""
    folder = tmp_path / "mine" / "version_0"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").write_text("")
    (folder / "config.yaml").write_text("{}")
    (folder / "metrics.json").write_text(json.dumps({"status": "complete", "history": [{}, {}, {}]}))
    return folder


def test_a_new_run_gets_the_next_folder_and_takes_it_away_if_it_never_begins(tmp_path, complete):
    chosen = choose("fit", options(tmp_path), Same())
    assert chosen.folder == tmp_path / "mine" / "version_1"
    assert chosen.created
    chosen.release()
    assert not chosen.folder.exists()
    assert complete.exists()


def test_other_processes_of_the_job_learn_where_and_from_what(tmp_path):
    chosen = RunChoice(tmp_path, tmp_path / "last.ckpt", complete=True)
    assert RunChoice.of(json.loads(json.dumps(chosen.decision()))) == chosen


def test_auto_finds_that_there_is_nothing_to_do(tmp_path, complete):
    assert choose("fit", options(tmp_path, resume="auto"), Same()) == RunChoice(complete, complete=True)


def test_auto_starts_beside_runs_of_another_configuration(tmp_path, complete):
    chosen = choose("fit", options(tmp_path, resume="auto"), Same("seed_everything"))
    assert (chosen.folder.name, chosen.complete) == ("version_1", False)
    chosen.release()


def test_auto_keeps_what_ended_before_its_first_checkpoint(tmp_path, complete, capsys):
    (complete / "metrics.json").write_text('{"status": "interrupted"}')
    (complete / "checkpoints" / "last.ckpt").unlink()
    chosen = choose("fit", options(tmp_path, resume="auto"), Same())
    assert chosen.folder == complete
    assert list(chosen.folder.glob("*.yaml")) == []
    assert "version_0.set_aside_0" in capsys.readouterr().out
    chosen.release()


@pytest.mark.parametrize("left", [[], [".lock"], [".lock", ".config.yaml.77"]])
def test_auto_takes_the_folder_of_a_process_that_was_killed_before_it_wrote_anything(tmp_path, complete, left):
    for name in ("version_1", "version_2", "kept"):
        (tmp_path / "mine" / name).mkdir()
    (tmp_path / "mine" / "version_1" / "notes.txt").write_text("of somebody")
    for name in left:
        (tmp_path / "mine" / "version_2" / name).write_text("")
    chosen = choose("fit", options(tmp_path, resume="auto"), Same("seed_everything"))
    assert chosen.folder == tmp_path / "mine" / "version_2"
    assert [path.name for path in chosen.folder.iterdir()] == [".lock"]
    # Another that starts now finds it taken.
    other = choose("fit", options(tmp_path, resume="auto"), Same("seed_everything"))
    assert other.folder == tmp_path / "mine" / "version_3"
    chosen.release()
    other.release()
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["kept", "version_0", "version_1"]


def test_a_run_with_a_name_begins_again_where_a_process_was_killed_before_it_wrote_anything(tmp_path):
    folder = tmp_path / "mine" / "v"
    folder.mkdir(parents=True)
    for name in (".lock", ".config.yaml.77"):
        (folder / name).write_text("")
    chosen = choose("fit", options(tmp_path, resume="auto", version="v"), Same("its configuration, which is missing"))
    assert (chosen.folder, chosen.created) == (folder, True)
    assert [path.name for path in folder.parent.iterdir()] == ["v"]
    chosen.release()
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("of somebody")
    with pytest.raises(ConfigurationError, match="its configuration, which is missing"):
        choose("fit", options(tmp_path, resume="auto", version="v"), Same("its configuration, which is missing"))


def test_what_a_killed_training_was_writing_is_cleared_away(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "evaluation").mkdir()
    kept = (".reserve", ".lock", "config.yaml", "checkpoints/last.ckpt", "evaluation/.clean.npz.12", ".lock.held")
    for name in (*kept, ".config.yaml.12", "checkpoints/.last.ckpt.3"):
        (tmp_path / name).write_text("")
    run_folder.clear(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(kept)


def test_a_new_run_whose_empty_folder_was_taken_makes_another(tmp_path, monkeypatch):
    create, taken = run_folder.create, []

    def create_late(*arguments):
        folder = create(*arguments)
        if not taken:
            taken.append(choose("fit", options(tmp_path, resume="auto"), Same()))
        return folder

    monkeypatch.setattr(run_folder, "create", create_late)
    chosen = choose("fit", options(tmp_path), Same())
    assert (taken[0].folder.name, chosen.folder.name) == ("version_0", "version_1")
    taken[0].release()
    chosen.release()


def test_two_processes_never_train_in_one_folder(tmp_path, complete):
    (complete / "metrics.json").write_text('{"status": "interrupted"}')
    (complete / "checkpoints" / "last.ckpt").unlink()
    chosen = choose("fit", options(tmp_path, version="here"), Same())
    with pytest.raises(ConfigurationError, match="Expected to be the only process"):
        choose("fit", options(tmp_path, resume="auto", version="here"), Same())
    chosen.release()


@pytest.mark.parametrize(
    ("command", "given", "same", "message"),
    [
        ("test", {}, (), "`--ckpt_path` with `test`, but got none"),
        ("fit", {"ckpt_path": "last", "resume": "auto"}, (), "but got both"),
        ("fit", {"ckpt_path": "last"}, (), "is complete with 3 epochs"),
        ("fit", {"ckpt_path": "last"}, ("method",), "but method differs;"),
        ("fit", {"resume": "auto", "version": "version_0"}, ("method", "data.root"), "but method, data.root differ;"),
        ("fit", {"ckpt_path": "last", "name": "other"}, (), "there is no .*other"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_made(tmp_path, complete, command, given, same, message):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigurationError, match=message):
        choose(command, options(tmp_path, **given), Same(*same))
    assert sorted(tmp_path.rglob("*")) == before


def test_what_an_evaluation_finds_lies_in_the_run(complete):
    chosen = choose("validate", options(complete, ckpt_path=complete / "checkpoints" / "last.ckpt"), Same())
    assert chosen.folder == complete / "evaluations" / "validate_0"
    assert run_folder.of_checkpoint(complete / "checkpoints" / "last.ckpt") == complete
