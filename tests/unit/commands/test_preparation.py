"""Data that cannot be read is found once, before the first of the runs that need it."""

import pytest
import yaml

from attn_lightning.commands.preparation import Preparation, check_data
from attn_lightning.commands.search import search_command
from attn_lightning.commands.study import study_command
from attn_lightning.commands.validation import shared_validator
from attn_lightning.errors import ConfigurationError
from attn_lightning.study.engines import Ended
from attn_lightning.study.engines.local import LocalEngine

PLANTED = ["--data=Planted", "--data.train_documents=20", "--data.embeddings=RandomEmbeddings"]


@pytest.fixture(autouse=True)
def no_data(tmp_path, monkeypatch):
    """No folder of data, an empty cache, and engines that say what they were given instead of running it."""
    monkeypatch.delenv("ATTN_LIGHTNING_DATA", raising=False)
    monkeypatch.setenv("ATTN_LIGHTNING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(LocalEngine, "warm_up", lambda self: None)
    given, open_jobs = [], []

    def submit(self, job):
        given.append(job.name)
        open_jobs.append(job.name)

    def ended(self, seconds):
        return [Ended(open_jobs.pop(), 1, "not run here")]

    monkeypatch.setattr(LocalEngine, "submit", submit)
    monkeypatch.setattr(LocalEngine, "ended", ended)
    monkeypatch.setattr(LocalEngine, "has_room", lambda self: not open_jobs)
    return given


def options(*arguments):
    return shared_validator().options(["fit", *arguments])


def test_data_is_ready_or_says_why_not():
    preparation = Preparation(shared_validator().parser)
    assert preparation.refusal(options(*PLANTED).data) is None
    assert "a local copy of mr, but got none" in preparation.refusal(options("--data=MR").data)
    refused = preparation.refusal(options("--data=TextFiles", "--data.train=nowhere.csv", "--data.test=t.csv").data)
    assert "Expected a file at nowhere.csv" in refused


def test_a_hub_that_does_not_answer_is_asked_once_for_all_options_of_the_same_texts(monkeypatch):
    asked = []

    def download(hub, name):
        asked.append(name)
        raise ConfigurationError("the hub does not answer")

    monkeypatch.setattr("attn_lightning.data.sources.download", download)
    preparation = Preparation(shared_validator().parser)
    for labels in (10, 20, 30):
        parsed = options("--data=SST", "--data.embeddings=RandomEmbeddings", f"--data.labels_per_class={labels}")
        assert preparation.refusal(parsed.data) == "the hub does not answer"
    assert asked == ["sst2"]


def mr(tmp_path):
    """A file of data that is nowhere here, and has no copy on the hub."""
    path = tmp_path / "reviews.yaml"
    path.write_text("data: {class_path: MR, init_args: {embeddings: RandomEmbeddings}}\n")
    return str(path)


def own(tmp_path, *data, on="local"):
    root = tmp_path / "runs"
    asked = ["--methods=vanilla,iat", f"--data={','.join(data)}", "--seeds=2", "--name=absent", "--root", str(root)]
    small = ["data.embeddings=RandomEmbeddings", "data.embeddings.dimension=4"]
    return study_command([*asked, *(f"--option={option}" for option in small), "--no-report", "--on", on])


def test_a_study_whose_data_is_nowhere_ends_in_one_line_before_anything_runs(tmp_path, no_data):
    with pytest.raises(ConfigurationError, match=r"a local copy of mr, but .* No cell was run: all 4") as error:
        own(tmp_path, mr(tmp_path))
    assert "\n" not in str(error.value)
    assert no_data == []


def test_cells_on_other_data_run_and_the_rest_is_said_once(tmp_path, no_data, capsys):
    assert own(tmp_path, mr(tmp_path), "planted") == 1
    lines = capsys.readouterr().out.splitlines()
    assert {name.partition("/")[0] for name in no_data} == {"vanilla_planted", "iat_planted"}
    said = [line for line in lines if "a local copy of mr" in line]
    assert said == [said[0]] * 2, "once before the cells, once under the tables"
    assert said[0].startswith("not run: vanilla_reviews/seed_0 and 3 more: Expected")


def test_the_same_mistake_in_all_cells_is_one_line_of_a_dry_run(tmp_path):
    with pytest.raises(ConfigurationError, match="2 that do not") as error:
        study_command(
            [
                "--methods=vanilla,iat",
                "--data",
                mr(tmp_path),
                "--root",
                str(tmp_path / "runs"),
                "--seeds=2",
                "--dry-run",
            ]
        )
    assert str(error.value).count("a local copy of mr") == 1
    assert "vanilla_reviews and 1 more" in str(error.value)


def test_a_cluster_is_not_asked_for_the_data_of_its_nodes(tmp_path, no_data, monkeypatch):
    monkeypatch.setattr("attn_lightning.commands.study.make_engine", lambda *given: LocalEngine(1))
    assert own(tmp_path, mr(tmp_path), on="ray") == 1
    assert len(no_data) == 4


def test_a_search_whose_data_is_nowhere_begins_no_trial(tmp_path, no_data):
    pytest.importorskip("optuna", reason="needs the extra `search`")
    sweep = tmp_path / "absent.yaml"
    base = ["fit", "--data=MR", "--trainer.max_epochs=1", "${args}"]
    sweep.write_text(
        yaml.safe_dump(
            {
                "command": ["${env}", "python", "-m", "attn_lightning", *base],
                "method": "random",
                "metric": {"name": "best/val/accuracy", "goal": "maximize"},
                "parameters": {"model.learning_rate": {"min": 0.001, "max": 0.01}},
            }
        )
    )
    with pytest.raises(ConfigurationError, match="a local copy of mr") as error:
        search_command([str(sweep), "--root", str(tmp_path / "runs"), "--trials=2"])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_commands_of_which_some_have_data_are_run_with_a_word_about_the_others():
    said = []
    check_data([options(*PLANTED), options("--data=MR")], Preparation(shared_validator().parser), said.append)
    (line,) = said
    assert line.startswith("some trials cannot run: Expected a local copy of mr")
