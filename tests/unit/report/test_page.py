"""The report as a whole: what it holds, and that bad input costs a line and no more."""

import json
import re

import pytest
import yaml

from attn_lightning.errors import ConfigurationError
from attn_lightning.report.page import ReportOptions, page_content, read_sources, write_page
from support.reports import write_report

PLAIN = ReportOptions(figures=False)


def content_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)[1])


def test_a_run_and_a_study_on_one_page(make_run, tmp_path):
    alone = make_run("rp_mine", root=tmp_path / "alone")
    for method in ("vanilla", "ivat"):
        for seed in range(2):
            make_run(f"{method}_mine", f"seed_{seed}", seed=seed)
    page = write_report([alone, tmp_path / "runs"], tmp_path / "out", PLAIN)
    content = content_of(page)
    assert content["title"] == "runs, rp_mine/v"
    assert [run["label"] for run in content["runs"]] == ["rp_mine/v", "ivat_mine/seed_0", "vanilla_mine/seed_0"]
    assert all(run["documents"] for run in content["runs"])
    assert [group["label"] for group in content["groups"]] == ["rp_mine/v"]
    assert len(content["studies"]) == 1
    assert content["metrics"]["test/accuracy"] == {
        "name": "Accuracy",
        "meaning": "share of right predictions",
        "range": "0..1",
        "better": "higher",
        "higher": True,
    }
    assert content["notes"] == []
    assert (
        sorted(path.name for path in (tmp_path / "out" / "tables").iterdir())
        == [f"runs-mine.{ending}" for ending in ("csv", "md", "tex")]
        + [f"runs-mine-2.{ending}" for ending in ("csv", "md", "tex")]
        or content["files"]
    )
    assert all((tmp_path / "out" / path).is_file() for path in content["files"])


def test_figures_are_drawn_when_asked_for(make_run, tmp_path):
    page = write_report([make_run()], tmp_path / "out")
    assert [path for path in content_of(page)["files"] if path.startswith("figures/")] == [
        f"figures/learning-curves.{kind}" for kind in ("svg", "pdf", "png")
    ]


def test_seeds_of_one_experiment_are_one_group(make_run, tmp_path):
    paths = [make_run(version=f"v{seed}", seed=seed) for seed in range(2)] + [make_run(version="again", seed=1)]
    sources = read_sources(paths)
    labels = [group["label"] for group in page_content(sources, 10)["groups"]]
    assert labels == ["ivat_mine (2 seeds)", "ivat_mine/again"]


def test_runs_of_one_name_with_other_options_are_no_seeds_of_one_another(make_run, tmp_path):
    paths = [make_run(version=f"v{seed}", seed=seed) for seed in range(3)]
    configurations = (
        {"seed_everything": 0, "data": {"init_args": {"label_seed": 0}}},
        {"seed_everything": 1, "data": {"init_args": {"label_seed": 1}}},
        {"seed_everything": 2, "data": {"init_args": {"label_seed": 2}}, "trainer": {"max_epochs": 9}},
    )
    for path, configuration in zip(paths, configurations, strict=True):
        (path / "config.yaml").write_text(yaml.safe_dump(configuration))
    labels = [group["label"] for group in page_content(read_sources(paths), 10)["groups"]]
    assert labels == ["ivat_mine (2 seeds)", "ivat_mine/v2"]
    # In a folder without a record of a study, they are rows of their own.
    (study,) = read_sources([tmp_path / "runs"]).studies
    assert [variant.label for variant in study.study.methods] == ["ivat", "ivat v2"]
    assert [cell.method for cell, _ in study.results] == ["ivat", "ivat", "ivat v2"]


def test_bad_input_is_one_line_each_and_the_rest_is_made(make_run, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    damaged, no_documents = make_run("damaged_mine"), make_run("none_mine", texts=None)
    (damaged / "predictions.parquet").write_bytes(b"PAR1 no")
    broken = make_run("broken_mine")
    (broken / "metrics.json").write_text("{")
    other = make_run("ivat_other", data="other")
    paths = [
        tmp_path / "nowhere",
        tmp_path / "empty",
        tmp_path / "file",
        broken,
        damaged,
        no_documents,
        other,
        make_run("good_mine"),
    ]
    sources = read_sources(paths)
    content = content_of(write_page(sources, tmp_path / "out", PLAIN))
    for part in (
        "nowhere is no folder",
        "there is no run in it",
        "file is no folder",
        "broken_mine",
        "damaged_mine/v is shown without documents",
        "none_mine/v is shown without documents",
        "have other test documents and are not laid side by side",
    ):
        assert len([note for note in content["notes"] if part in note]) == 1, part
    assert all("\n" not in note for note in content["notes"])
    assert [run["label"] for run in content["runs"] if run["documents"]] == ["ivat_other/v", "good_mine/v"]
    assert len(content["groups"]) == 4


def test_runs_without_predictions_are_one_line_together(make_run, tmp_path):
    runs = [make_run(f"{name}_mine", texts=None) for name in ("a", "b", "c")]
    sources = read_sources([*runs, make_run("good_mine")])
    content = content_of(write_page(sources, tmp_path / "out", PLAIN))
    noted = [note for note in content["notes"] if "without documents" in note]
    assert noted == ["a_mine/v and 2 more are shown without documents: no predictions.parquet is in their folders"]
    assert [run["label"] for run in content["runs"] if run["documents"]] == ["good_mine/v"]


def test_nothing_to_show_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="nowhere is no folder"):
        write_report([tmp_path / "nowhere"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_refused(make_run, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ConfigurationError, match="Expected to be able to write a report"):
        write_report([make_run()], tmp_path / "out", PLAIN)


def test_options_are_checked(make_run, tmp_path):
    with pytest.raises(ConfigurationError, match="`style`"):
        write_report([make_run()], tmp_path / "out", ReportOptions(style="x"))
    with pytest.raises(ConfigurationError, match="`documents`"):
        write_report([make_run("b")], tmp_path / "out", ReportOptions(documents=-1))


def test_a_report_is_made_again_in_its_place_and_is_the_same(make_run, tmp_path):
    folder = make_run()
    first = write_report([folder], tmp_path / "out", PLAIN).read_bytes()
    assert write_report([folder], tmp_path / "out", PLAIN).read_bytes() == first


def test_hostile_names_stay_text(make_run, tmp_path):
    folder = make_run(name="x", data="mine", methods=[{"class": "</script><b>"}], error="<!--\x1b[31m")
    page = write_report([folder], tmp_path / "out", PLAIN).read_text("utf-8")
    assert "<b>" not in page
    assert page.count("</script>") == 2


def test_folders_of_experiments_with_one_run_each_are_laid_side_by_side(make_run, tmp_path):
    runs = [make_run(name, seed=seed) for seed, name in enumerate(("a_mine", "b_mine"))]
    sources = read_sources([run.parent for run in runs])
    assert [run.label for run in sources.runs] == ["a_mine/v", "b_mine/v"]
    assert page_content(sources, 10)["comparison"]["labels"] == ["a_mine/v", "b_mine/v"]
    assert len(read_sources([runs[0], runs[0].parent]).runs) == 1
    other = make_run("c_other", data="other")
    (note,) = page_content(read_sources([runs[0].parent, other.parent]), 10)["notes"]
    assert "other test documents and are not laid side by side: a_mine/v on mine; c_other/v on other" in note


def test_a_folder_with_damaged_runs_alone_says_what_is_wrong_with_them(make_run):
    run = make_run()
    (run / "metrics.json").write_text("{")
    with pytest.raises(
        ConfigurationError, match=r"^Expected .*metrics\.json to be JSON, but got: .*; remove the file\.$"
    ):
        read_sources([run.parent])
