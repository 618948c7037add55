"""A study without a file: what its options become, and what they may not be."""

import pytest

from attn_lightning.errors import ConfigurationError
from attn_lightning.study.configuration import read_study, study_of
from attn_lightning.study.expansion import expand
from attn_lightning.study.own import Asked, study_contents, write_study
from support.experiments import make_experiments


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with experiments and a file of data beside them."""
    make_experiments(tmp_path, ("method/vanilla", "method/ivat", "data/planted", "base"), "data: Planted\n")
    (tmp_path / "mine.yaml").write_text("data: {class_path: TextFiles}\n")
    (tmp_path / "texts.csv").write_text("text,label\ngood,1\n")
    (tmp_path / "stars.csv").write_text("review,stars\ngood,5\n")
    (tmp_path / "texts.json").write_text("[]")
    for name in ("train.csv", "test.csv"):
        (tmp_path / "reviews").mkdir(exist_ok=True)
        (tmp_path / "reviews" / name).write_text("text,label\ngood,1\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(here, **options):
    return study_contents(Asked(**{"methods": "vanilla,ivat", "data": "mine.yaml", **options}), here / "runs")


def test_it_is_the_file_that_would_have_been_written(here):
    metrics = "accuracy, evaluation/robustness/accuracy[where=attention,epsilon=2]"
    path, contents = made(here, seeds="2", metrics=metrics, baseline="ivat", options=["trainer.max_epochs=3"])
    assert path == here / "runs" / "study-mine" / "study-mine.yaml"
    write_study(path, contents)
    study = read_study(path)
    assert study == study_of(path, contents)
    assert (study.seeds, study.baseline) == ((0, 1), "ivat")
    assert study.metrics == ("test/accuracy", "evaluation/robustness/accuracy[where=attention,epsilon=2]")
    assert study.options[0].overrides == (("trainer.max_epochs", "3"),)
    cells = expand(study)
    assert [str(cell) for cell in cells[:2]] == ["vanilla_mine/seed_0", "ivat_mine/seed_0"]
    files = [str(here / "experiments" / "base.yaml"), "mine.yaml", str(here / "experiments" / "method" / "ivat.yaml")]
    assert cells[1].arguments(here)[:7] == ["fit", *(part for file in files for part in ("--config", file))]
    write_study(path, contents)
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_data_by_name_is_an_experiment_by_name(here):
    path, contents = made(here, data="planted", seeds="3,7")
    study = study_of(path, contents)
    assert study.seeds == (3, 7)
    assert "--config" in (arguments := expand(study)[0].arguments(here))
    assert arguments[2].endswith("experiments/vanilla_planted.yaml")


def test_a_data_file_is_data_by_itself_and_is_recorded_with_its_whole_path(here):
    path, contents = made(here, data="texts.csv", seeds="1", options=["data.max_length=9"])
    assert path == here / "runs" / "study-texts" / "study-texts.yaml"
    assert contents["data"] == {"texts": {"experiment": str(here / "texts.csv")}}
    write_study(path, contents)
    cell = expand(read_study(path))[1]
    assert str(cell) == "ivat_texts/seed_0"
    base, method = (str(here / "experiments" / f"{name}.yaml") for name in ("base", "method/ivat"))
    asked = ["fit", "--config", base, "--config", method, f"--data={here / 'texts.csv'}"]
    assert cell.arguments(here)[: len(asked)] == asked
    assert cell.arguments(here)[-1] == "--data.max_length=9"


def test_tables_are_about_validation_where_nothing_says_what_is_for_testing(here):
    validation = ["val/accuracy", "val/f1", "val/gradient_kendall_mean"]
    assert made(here, data="texts.csv")[1]["metrics"] == validation
    assert "metrics" not in made(here, data="reviews")[1]
    assert "metrics" not in made(here, data="texts.csv", options=["data.test=texts.csv"])[1]
    assert made(here, data="texts.csv", metrics="val/ece")[1]["metrics"] == ["val/ece"]


def test_columns_are_options_of_all_cells(here):
    named = ["data.text_column=review", "data.label_column=stars"]
    assert made(here, data="stars.csv", options=named)[1]["data"] == {"stars": {"experiment": str(here / "stars.csv")}}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"methods": "vanilla,ivta"}, "got 'ivta'; choose of ivat, vanilla"),
        ({"methods": "vanilla,,ivat"}, "names between commas"),
        ({"data": "none.yaml"}, "none.yaml does not exist"),
        ({"data": "texts.json"}, "class_path: TextFiles"),
        ({"data": "stars.csv"}, "but got 'review', 'stars'"),
        ({"data": "none.csv"}, "none.csv does not exist"),
        ({"data": "texts.csv,./texts.csv"}, "different names"),
        ({"data": "plantd"}, "choose of planted"),
        ({"data": "mine.yaml,./mine.yaml"}, "different names"),
        ({"seeds": "five"}, "`--seeds`"),
        ({"seeds": "-1"}, "`--seeds`"),
        ({"options": ["trainer.max_epochs"]}, "OPTION=VALUE"),
        ({"options": ["a={"]}, "Expected a value after a="),
        ({"name": "../x"}, "`--name`"),
    ],
)
def test_what_they_may_not_be(here, options, said):
    with pytest.raises(ConfigurationError) as caught:
        made(here, **options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
