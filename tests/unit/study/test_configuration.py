"""Study files: what they mean, and one clear error for every mistake."""

from pathlib import Path

import pytest

from attn_lightning.errors import ConfigurationError
from attn_lightning.study.configuration import DEFAULT_METRICS, find_study, read_study
from attn_lightning.study.expansion import expand

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "studies").mkdir()
    for method in ("vanilla", "iat", "relation"):
        for data in ("planted", "sst"):
            (tmp_path / f"{method}_{data}.yaml").write_text("data: Planted\n")
    return tmp_path / "studies"


def study(folder, text, name="tried"):
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return read_study(path)


def test_names_and_a_number_of_seeds(folder):
    found = study(folder, "methods: [vanilla, iat]\ndata: [planted]\nseeds: 3\n")
    assert found.seeds == (0, 1, 2)
    assert found.metrics == DEFAULT_METRICS
    assert found.baseline == "vanilla"
    assert [str(cell) for cell in expand(found)] == [
        f"{method}_planted/seed_{seed}" for seed in range(3) for method in ("vanilla", "iat")
    ]


def test_a_cell_is_an_ordinary_command(folder):
    found = study(
        folder,
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


def test_lists_are_crossed_and_labeled(folder):
    found = study(
        folder,
        """
        methods:
          vanilla:
          relation: {method.output: [logit, loss], method.target: [joint, attention], method.weight: 0.1}
        data: [planted, sst]
        seeds: 1
        options: {data.split_seed: [0, 1]}
        """,
    )
    assert [variant.label for variant in found.methods] == [
        "vanilla",
        "relation,output=logit,target=joint",
        "relation,output=logit,target=attention",
        "relation,output=loss,target=joint",
        "relation,output=loss,target=attention",
    ]
    cells = expand(found)
    assert len(cells) == 5 * 2 * 2
    assert cells[1].name == "relation,output=logit,target=joint_planted_split_seed=0"
    assert ("method.weight", "0.1") in cells[1].overrides
    assert cells == expand(found)


def test_an_experiment_under_another_label(folder):
    found = study(
        folder,
        "methods: [vanilla]\ndata: {plain: {experiment: planted}, short: {experiment: planted, data.max_length: 9}}\n"
        "seeds: 1\n",
    )
    first, second = expand(found)
    assert first.config == second.config == folder.parent / "vanilla_planted.yaml"
    assert (first.name, second.name) == ("vanilla_plain", "vanilla_short")


def test_what_is_required_of_a_run(folder):
    text = "methods: [vanilla]\ndata: [planted]\nseeds: 2\n"
    found = study(folder, text + "require: {accuracy: 0.9, val/f1: 1}\n")
    assert found.require == {"test/accuracy": 0.9, "val/f1": 1.0}
    assert found.condition == "test/accuracy >= 0.9 and val/f1 >= 1"
    assert study(folder, text).require == {}
    with pytest.raises(ConfigurationError, match=r"least value.*test/accuracy: 0\.9"):
        study(folder, text + "require: {accuracy: high}\n")
    with pytest.raises(ConfigurationError, match=r"`test/\.\.\.`"):
        study(folder, text + "require: {train/accuracy: 0.9}\n")


def test_only_the_first_seed_measures_the_controls(folder):
    cells = expand(study(folder, "methods: [vanilla]\ndata: [planted]\nseeds: 3\n"))
    for option in ("--run.control=false", "--run.suite_untrained=false"):
        assert [option in cell.arguments(Path()) for cell in cells] == [False, True, True]
    cells = expand(study(folder, "methods: [vanilla]\ndata: [planted]\nseeds: 2\noptions: {run.control: true}\n"))
    assert all("--run.control=true" in cell.arguments(Path()) for cell in cells)
    assert ["--run.suite_untrained=false" in cell.arguments(Path()) for cell in cells] == [False, True]


def test_values_that_no_folder_can_be_named_after(folder):
    cells = expand(
        study(folder, "methods: [vanilla]\ndata: [planted]\nseeds: 1\noptions: {data.root: [a/b, a b, 'ä']}\n")
    )
    names = [cell.name for cell in cells]
    assert len(set(names)) == 3
    assert all("/" not in name and " " not in name for name in names)


VALID = "methods: [vanilla]\ndata: [planted]\nseeds: 1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods: [vanilla]\ndata: [planted]\n", "no `seeds`"),
        (VALID + "sedes: 2\n", "'sedes'; rename it. Did you mean seeds"),
        ("methods: []\ndata: [planted]\nseeds: 1\n", "`methods` to be a list of names"),
        ("methods: [3]\ndata: [planted]\nseeds: 1\n", "`methods` to be a list of names"),
        ("methods: [vanilla, vanilla]\ndata: [planted]\nseeds: 1\n", "'vanilla' twice"),
        ("methods: {vanilla: 3}\ndata: [planted]\nseeds: 1\n", "`methods.vanilla` to be a mapping"),
        ("methods: {vanilla: {method.epsilon: []}}\ndata: [planted]\nseeds: 1\n", "not empty"),
        ("methods: {vanilla: {method: {}}}\ndata: [planted]\nseeds: 1\n", "an empty mapping"),
        ("methods: [vanilla]\ndata: [planted]\nseeds: 0\n", "`seeds`"),
        ("methods: [vanilla]\ndata: [planted]\nseeds: -1\n", "`seeds`"),
        ("methods: [vanilla]\ndata: [planted]\nseeds: [1, 1]\n", "1 twice"),
        ("methods: [vanilla]\ndata: [planted]\nseeds: [1.5]\n", "`seeds`"),
        ("methods: [vanilla]\ndata: [planted]\nseeds: true\n", "`seeds`"),
        (VALID + "metrics: []\n", "`metrics`"),
        (VALID + "metrics: [train/loss]\n", "'train/loss'"),
        (VALID + "baseline: vanila\n", "'vanila'; choose of vanilla. Did you mean vanilla"),
        (VALID + "options: [a]\n", "`options` to be a mapping"),
        (VALID + "options: {run.root: x}\n", "'run.root', which a study sets"),
        (VALID + "options: {seed_everything: [1, 2]}\n", "'seed_everything', which a study sets"),
        (VALID + "experiments: nowhere\n", "`experiments` to be a folder"),
        ("methods: [vanilla\n", "readable YAML"),
        ("seeds: 1\nseeds: 2\n", "readable YAML"),
        ("data: ${nothing}\n", "readable YAML"),
        ("", "a mapping with"),
        ("- vanilla\n", "a mapping with"),
    ],
)
def test_a_mistake_is_one_error_that_names_the_file(folder, text, message):
    with pytest.raises(ConfigurationError) as caught:
        study(folder, text)
    assert message in str(caught.value)
    assert "tried.yaml" in str(caught.value)


def test_names_of_experiments_follow_a_pattern(folder):
    for name in ("sdc_sst_iat", "sdc_sst_vanilla"):
        (folder.parent / f"{name}.yaml").write_text("data: Planted\n")
    pattern = "experiment_name: 'sdc_{data}_{method}'\n"
    found = study(folder, f"{pattern}methods: [vanilla, iat]\ndata: {{wide: {{experiment: sst}}}}\nseeds: 1\n")
    assert [cell.config.stem for cell in expand(found)] == ["sdc_sst_vanilla", "sdc_sst_iat"]
    assert [cell.name for cell in expand(found)] == ["vanilla_wide", "iat_wide"]


def test_experiments_are_composed(folder):
    for part in ("method/ivat", "data/news", "data/sdc_blobs"):
        (folder.parent / part).parent.mkdir(exist_ok=True)
        (folder.parent / f"{part}.yaml").write_text("{}\n")
    (cell,) = expand(study(folder, "methods: [ivat]\ndata: [news]\nseeds: 1\n"))
    assert cell.config == folder.parent / "ivat_news.yaml"
    pattern = "experiment_name: 'sdc_{data}_{method}'\n"
    (cell,) = expand(study(folder, f"{pattern}methods: [ivat]\ndata: [blobs]\nseeds: 1\n"))
    assert cell.config == folder.parent / "sdc_blobs_ivat.yaml"
    with pytest.raises(ConfigurationError, match="no 'ivat_nws'"):
        expand(study(folder, "methods: [ivat]\ndata: [nws]\nseeds: 1\n"))


@pytest.mark.parametrize(
    "pattern", ["sdc_{data}", "{method}", "{data}{data}_{method}", "{method}_{data}_{seed}", "../{method}_{data}", "3"]
)
def test_other_patterns_are_refused(folder, pattern):
    with pytest.raises(ConfigurationError, match="experiment_name"):
        study(folder, f"experiment_name: '{pattern}'\nmethods: [vanilla]\ndata: [sst]\nseeds: 1\n")


def test_an_unknown_experiment_lists_the_nearest(folder):
    with pytest.raises(ConfigurationError, match=r"Did you mean vanilla_planted.*experiments --folder .* lists all"):
        expand(study(folder, "methods: [vanila]\ndata: [planted]\nseeds: 1\n"))


def test_two_cells_of_one_name_are_refused(folder):
    (folder.parent / "a_b_planted.yaml").write_text("")
    (folder.parent / "a_planted.yaml").write_text("")
    text = "methods: {a: {}, a_b: {}}\ndata: {planted: {}, b_planted: {experiment: planted}}\nseeds: 1\n"
    with pytest.raises(ConfigurationError, match="name of its own"):
        expand(study(folder, text))


BASED = """
methods:
  relation: {method.base: "{iat,epsilon=2}/checkpoints/best.ckpt"}
  vanilla:
  iat: {method.epsilon: [1, 2]}
data: {planted: {}, small: {experiment: planted}}
seeds: 2
"""


def test_a_method_begins_from_the_run_of_another_with_the_same_data_and_seed(folder):
    cells = {str(cell): cell for cell in expand(study(folder, BASED))}
    assert len(cells) == 16
    cell, root = cells["relation_small/seed_1"], Path("runs/tried")
    base = cells["iat,epsilon=2_small/seed_1"]
    assert f"--method.base={base.folder(root)}/checkpoints/best.ckpt" in cell.arguments(root)
    assert cell.base_folders(root) == [base.folder(root)]
    assert cell.base_files(root) == [base.folder(root) / "checkpoints" / "best.ckpt"]
    assert base.base_folders(root) == base.base_files(root) == []


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
def test_a_base_that_cannot_be_is_refused(folder, text, message):
    with pytest.raises(ConfigurationError, match=message):
        expand(study(folder, f"{text}seeds: 1\n"))


def test_braces_that_name_no_file_are_values(folder):
    (cell,) = expand(study(folder, "methods: {vanilla: {method: '{class_path: X}'}}\ndata: [sst]\nseeds: 1\n"))
    assert cell.arguments(Path("runs"))[-1] == "--method={class_path: X}"


def test_an_unknown_study_lists_the_nearest_and_all(folder):
    study(folder, VALID, "shortcut")
    study(folder, VALID, "relation")
    assert find_study("shortcut", folder) == folder / "shortcut.yaml"
    assert find_study(str(folder / "shortcut.yaml"), Path("elsewhere")) == folder / "shortcut.yaml"
    with pytest.raises(ConfigurationError, match=r"Did you mean shortcut\? All: relation, shortcut"):
        find_study("shortcuts", folder)
    with pytest.raises(ConfigurationError, match="has no other"):
        find_study("shortcuts", folder / "empty")


@pytest.mark.parametrize("path", sorted((REPOSITORY / "experiments" / "studies").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_studies_of_the_repository(path):
    assert path.read_text().splitlines()[0] == f"# make study STUDY={path.stem}"
    assert expand(read_study(path))
