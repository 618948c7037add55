"""From a study to its cells: the command of each, its name, and the runs that it begins from."""

from pathlib import Path

import pytest

from attn_lightning.errors import ConfigurationError
from attn_lightning.study.expansion import expand
from attn_lightning.study.named import STUDIES, named_study, study_names
from attn_lightning.study.table import measure_of

REPOSITORY = Path(__file__).resolve().parents[3]


def test_a_cell_is_an_ordinary_command(study, folder):
    found = study(
        """
        methods: {iat: {method.epsilon: 5}}
        data: [planted]
        seeds: [7]
        options: {trainer: {max_epochs: 2, precision: null}, method.epsilon: 1}
        """,
    )
    (cell,) = expand(found)
    assert cell.arguments(Path("runs/tried")) == [
        "fit",
        "--config",
        str(folder.parent / "iat_planted.yaml"),
        "--seed_everything=7",
        "--run.root=runs/tried",
        "--run.name=iat_planted",
        "--run.version=seed_7",
        "--run.report=false",
        "--trainer.max_epochs=2",
        "--trainer.precision=null",
        "--method.epsilon=5",
    ]
    assert cell.folder(Path("runs")) == Path("runs/iat_planted/seed_7")


def test_an_experiment_under_another_label(study, folder):
    found = study(
        "methods: [vanilla]\ndata: {plain: {experiment: planted}, short: {experiment: planted, data.max_length: 9}}\n"
        "seeds: 1\n",
    )
    first, second = expand(found)
    assert first.config == second.config == folder.parent / "vanilla_planted.yaml"
    assert (first.name, second.name) == ("vanilla_plain", "vanilla_short")


def test_only_the_first_seed_measures_the_controls(study):
    cells = expand(study("methods: [vanilla]\ndata: [planted]\nseeds: 3\n"))
    for option in ("--run.control=false", "--run.suite_untrained=false"):
        assert [option in cell.arguments(Path()) for cell in cells] == [False, True, True]
    cells = expand(study("methods: [vanilla]\ndata: [planted]\nseeds: 2\noptions: {run.control: true}\n"))
    assert all("--run.control=true" in cell.arguments(Path()) for cell in cells)
    assert ["--run.suite_untrained=false" in cell.arguments(Path()) for cell in cells] == [False, True]


def test_values_that_no_folder_can_be_named_after(study):
    cells = expand(study("methods: [vanilla]\ndata: [planted]\nseeds: 1\noptions: {data.root: [a/b, a b, 'ä']}\n"))
    names = [cell.name for cell in cells]
    assert len(set(names)) == 3
    assert all("/" not in name and " " not in name for name in names)


def test_names_of_experiments_follow_a_pattern(study, folder):
    for name in ("sdc_sst_iat", "sdc_sst_vanilla"):
        (folder.parent / f"{name}.yaml").write_text("data: Planted\n")
    pattern = "experiment_name: 'sdc_{data}_{method}'\n"
    found = study(f"{pattern}methods: [vanilla, iat]\ndata: {{wide: {{experiment: sst}}}}\nseeds: 1\n")
    assert [cell.config.stem for cell in expand(found)] == ["sdc_sst_vanilla", "sdc_sst_iat"]
    assert [cell.name for cell in expand(found)] == ["vanilla_wide", "iat_wide"]


def test_experiments_are_composed(study, folder):
    for part in ("method/ivat", "data/news", "data/sdc_blobs"):
        (folder.parent / part).parent.mkdir(exist_ok=True)
        (folder.parent / f"{part}.yaml").write_text("{}\n")
    (cell,) = expand(study("methods: [ivat]\ndata: [news]\nseeds: 1\n"))
    assert cell.config == folder.parent / "ivat_news.yaml"
    pattern = "experiment_name: 'sdc_{data}_{method}'\n"
    (cell,) = expand(study(f"{pattern}methods: [ivat]\ndata: [blobs]\nseeds: 1\n"))
    assert cell.config == folder.parent / "sdc_blobs_ivat.yaml"
    with pytest.raises(ConfigurationError, match="no 'ivat_nws'"):
        expand(study("methods: [ivat]\ndata: [nws]\nseeds: 1\n"))


def test_an_unknown_experiment_lists_the_nearest(study, folder):
    with pytest.raises(ConfigurationError, match=r"Did you mean vanilla_planted.*experiments --folder .* lists all"):
        expand(study("methods: [vanila]\ndata: [planted]\nseeds: 1\n"))


def test_two_cells_of_one_name_are_refused(study, folder):
    (folder.parent / "a_b_planted.yaml").write_text("")
    (folder.parent / "a_planted.yaml").write_text("")
    text = "methods: {a: {}, a_b: {}}\ndata: {planted: {}, b_planted: {experiment: planted}}\nseeds: 1\n"
    with pytest.raises(ConfigurationError, match="name of its own"):
        expand(study(text))


BASED = """
methods:
  relation: {method.base: "{iat,epsilon=2}/checkpoints/best.ckpt"}
  vanilla:
  iat: {method.epsilon: [1, 2]}
data: {planted: {}, small: {experiment: planted}}
seeds: 2
"""


def test_a_method_begins_from_the_run_of_another_with_the_same_data_and_seed(study, folder):
    cells = {str(cell): cell for cell in expand(study(BASED))}
    assert len(cells) == 16
    cell, root = cells["relation_small/seed_1"], Path("runs/tried")
    base = cells["iat,epsilon=2_small/seed_1"]
    assert f"--method.base={base.folder(root)}/checkpoints/best.ckpt" in cell.arguments(root)
    assert cell.base_folders(root) == [base.folder(root)]
    assert cell.base_files(root) == {"method.base": base.folder(root) / "checkpoints" / "best.ckpt"}
    assert base.base_folders(root) == []
    assert base.base_files(root) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods: {vanilla: {a: '{vanila}/x'}}\ndata: [sst]\n", r"\{vanila\}; name one of .* Did you mean vanilla"),
        ("methods: {vanilla: {a: '{vanilla}/x'}}\ndata: [sst]\n", "a circle: vanilla before vanilla"),
        ("methods: {vanilla: {a: '{iat}/x'}, iat: {a: '{vanilla}/x'}}\ndata: [sst]\n", "a circle: .* before .* before"),
        ("methods: [vanilla]\ndata: {sst: {a: '{vanilla}/x'}}\n", r"\{vanilla\} in 'sst'; move"),
        ("methods: [vanilla]\ndata: [sst]\noptions: {a: '{vanilla}/x'}\n", r"\{vanilla\} in 'options'; move"),
    ],
)
def test_a_base_that_cannot_be_is_refused(study, text, message):
    with pytest.raises(ConfigurationError, match=message):
        expand(study(f"{text}seeds: 1\n"))


def test_an_option_may_follow_the_seed(study):
    cells = expand(study("methods: [vanilla]\ndata: {sst: {data.label_seed: '{seed}'}}\nseeds: [0, 3]\n"))
    assert [cell.arguments(Path())[-1] for cell in cells] == ["--data.label_seed=0", "--data.label_seed=3"]
    assert {cell.name for cell in cells} == {"vanilla_sst"}


def test_braces_that_name_no_file_are_values(study):
    (cell,) = expand(study("methods: {vanilla: {method: '{class_path: X}'}}\ndata: [sst]\nseeds: 1\n"))
    assert cell.arguments(Path("runs"))[-1] == "--method={class_path: X}"


@pytest.mark.parametrize("name", study_names(REPOSITORY / STUDIES))
def test_the_studies_of_the_repository(name):
    path = REPOSITORY / STUDIES / f"{name}.yaml"
    assert not path.is_file() or path.read_text().splitlines()[0] == f"# make study STUDY={name}"
    study = named_study(name, REPOSITORY / STUDIES)
    assert study.name == name
    assert expand(study)
    assert all(measure_of(metric) for metric in study.metrics)


@pytest.mark.parametrize("name", study_names(REPOSITORY / STUDIES))
def test_runs_with_few_labels_take_as_many_steps_as_those_with_all(name):
    for cell in expand(named_study(name, REPOSITORY / STUDIES)):
        options = cell.arguments(Path())
        if any(option.startswith("--data.labeled_fraction=") for option in options):
            assert any(option.startswith("--data.unlabeled") for option in options), cell.name
