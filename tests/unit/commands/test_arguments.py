"""Experiments by name on the command line, and options that count wherever they stand."""

import itertools
import shutil

import pytest
import yaml

from attn_lightning.commands.arguments import experiment_name, prepared, spelled_out, with_checkpoint_config
from attn_lightning.errors import ConfigurationError
from support.experiments import make_experiments


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_experiments(tmp_path, ("base", "method/ivat", "data/imdb", "own"), "trainer: {max_epochs: 2}\n")


PARTS = [f"--config=experiments/{part}.yaml" for part in ("base", "data/imdb", "method/ivat")]


def configs(arguments):
    return [f"--config={value}" for option, value in itertools.pairwise(arguments) if option == "--config"]


@pytest.mark.parametrize(
    "given",
    [
        ["--config", "ivat_imdb"],
        ["--config=ivat_imdb"],
        ["-c", "ivat_imdb"],
        ["--config", "experiments/ivat_imdb.yaml"],
        ["--config", "experiments/ivat_imdb"],
    ],
)
def test_a_name_becomes_its_files_and_names_the_run(folder, given):
    command, *rest = prepared(["fit", *given, "--run.test=false"])
    assert (command, rest[-1]) == ("fit", "--run.test=false")
    assert configs(rest) == PARTS
    assert experiment_name(["fit", *given, "--run.test=false"]) == "ivat_imdb"


def test_files_come_first_and_the_last_one_names_the_run(folder):
    given = ["fit", "--run.test", "false", "-c", "ivat_imdb", "--config=experiments/own.yaml", "--seed", "-1"]
    found = prepared(given)
    assert experiment_name(given) == "own"
    assert configs(found) == [*PARTS, "--config=experiments/own.yaml"]
    assert found[-4:] == ["--run.test", "false", "--seed", "-1"]


def test_without_a_configuration_nothing_changes(folder):
    for arguments in (["fit"], ["fit", "--help"], ["fit", "--config"], ["fit", "--data=Planted", "--print_config"]):
        assert prepared(arguments) == arguments
        assert experiment_name(arguments) == "run"


@pytest.mark.parametrize("given", [["--data", "mine.csv"], ["--data=mine.csv"], ["--data=./mine.csv"]])
def test_a_data_file_stands_for_the_options_of_its_class(folder, tmp_path, given):
    (tmp_path / "mine.csv").write_text("text,label\ngood,1\n")
    asked = ["fit", "--data.max_length=9", *given, "--config", "ivat"]
    options = ["--data=TextFiles", f"--data.train={tmp_path / 'mine.csv'}", "--data.validation=null"]
    command, *rest = prepared(asked)
    assert (command, configs(rest)) == ("fit", [PARTS[0], PARTS[2]])
    assert sorted(rest[4:]) == sorted([*options, "--data.test=null", "--data.max_length=9"])
    assert rest[4] == "--data=TextFiles", "a class comes before its options"
    assert experiment_name(asked) == "ivat_mine"
    assert experiment_name(["fit", *given]) == "mine"
    assert configs(prepared(["fit", *given])) == [PARTS[0]]


def test_options_beside_a_data_file_win_over_what_it_stands_for(folder, tmp_path):
    (tmp_path / "mine.csv").write_text("review,stars\ngood,1\n")
    found = prepared(["fit", "--data.test=t.csv", "--data.text_column=review", "--data=mine.csv"])
    assert "--data.test=null" not in found
    with pytest.raises(ConfigurationError, match="but got 'review', 'stars'"):
        prepared(["fit", "--data=mine.csv"])
    columns = tmp_path / "columns.yaml"
    columns.write_text("data: {class_path: TextFiles, init_args: {train: x.csv, text_column: review}}\n")
    assert f"--data.train={tmp_path / 'mine.csv'}" in prepared(["fit", f"--config={columns}", "--data=mine.csv"])


def test_a_data_file_does_not_say_that_it_is_for_testing(folder, tmp_path):
    (tmp_path / "mine.csv").write_text("text,label\ngood,1\n")
    with pytest.raises(ConfigurationError, match=r"nothing says .* test: mine\.csv"):
        prepared(["test", "--data=mine.csv"])


@pytest.mark.parametrize("value", ["ivat_imbd", "experiments/ivat_imbd.yaml"])
def test_an_unknown_experiment(folder, value):
    with pytest.raises(ConfigurationError, match="Did you mean ivat_imdb"):
        prepared(["fit", "--config", value])


ORDERS = [
    (
        ["--method.epsilon=2.5", "--method=AttentionVAT", "--method.xi", "-1"],
        ["--method=AttentionVAT", "--method.epsilon=2.5", "--method.xi", "-1"],
    ),
    (
        ["--method.epsilon=2.5", "--run.test=false", "--method.class_path", "AttentionVAT"],
        ["--method.class_path", "AttentionVAT", "--method.epsilon=2.5", "--run.test=false"],
    ),
    (
        ["--a.b.c.d=1", "--a.b=X", "--a.b.c=Y", "--a.bc=Z"],
        ["--a.b=X", "--a.b.c=Y", "--a.b.c.d=1", "--a.bc=Z"],
    ),
    # A second choice starts again.
    (["--a.b=1", "--a=X", "--a.b=2", "--a=Y"], ["--a=X", "--a.b=1", "--a.b=2", "--a=Y"]),
    # What is appended to a list belongs to the one before it.
    (["--a+=X", "--a.b=1", "--a+=Y", "--a.b=2"], ["--a+=X", "--a.b=1", "--a+=Y", "--a.b=2"]),
]


@pytest.mark.parametrize(("given", "expected"), ORDERS)
def test_a_class_comes_before_its_options(given, expected):
    assert prepared(["fit", *given]) == ["fit", *expected]


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        (["--method.epsilon=2.5", "--method=AttentionVAT"], "method.init_args.epsilon", 2.5),
        (["--data.max_length=9", "--data=Planted"], "data.init_args.max_length", 9),
        (["--method.weight=0.5", "--config=ivat_planted"], "method.init_args.weight", 0.5),
        (
            [
                "--model.backbone.encoder.hidden_size=3",
                "--model.backbone.encoder=BiLSTM",
                "--model.backbone=DefaultTokens",
            ],
            "model.backbone.init_args.encoder.init_args.hidden_size",
            3,
        ),
    ],
)
def test_no_option_is_lost_in_any_order(cli, options, key, value):
    for order in (options, options[::-1]):
        outcome = cli("fit", "--data=Planted", *order, "--print_config")
        assert outcome.code == 0, outcome.err
        found = yaml.safe_load(outcome.out)
        for name in key.split("."):
            found = found[name]
        assert found == value


def test_verbose_stands_for_the_option_of_the_run_in_fit_alone():
    assert spelled_out(["fit", "--verbose", "--run.name=a"]) == ["fit", "--run.verbose=true", "--run.name=a"]
    assert spelled_out(("test", "--verbose", "true")) == ["test", "--verbose", "true"]
    assert spelled_out([]) == []


def test_a_checkpoint_brings_its_configuration(finished):
    path = finished / "checkpoints" / "best.ckpt"
    for given in ([f"--ckpt_path={path}"], ["--ckpt_path", str(path)]):
        arguments = with_checkpoint_config(["test", *given])
        assert arguments[:3] == ["test", "--config", str(finished / "config.yaml")]
        assert "--run.name=ivat_planted" in arguments
        assert arguments[-len(given) :] == given


def test_a_run_that_was_made_longer_goes_on_as_long(finished_copy):
    path = finished_copy / "checkpoints" / "last.ckpt"
    longer = finished_copy / "config_resumed_1.yaml"
    longer.write_text((finished_copy / "config.yaml").read_text())
    assert with_checkpoint_config(["fit", f"--ckpt_path={path}"])[:3] == ["fit", "--config", str(longer)]


@pytest.mark.parametrize("command", ["test", "validate"])
def test_last_is_a_word_of_fit_alone(command):
    with pytest.raises(ConfigurationError, match=rf"`{command}` to be a file, but got 'last'"):
        with_checkpoint_config([command, "--config", "a.yaml", "--ckpt_path", "last"])


@pytest.mark.parametrize("given", [["--config", "a.yaml"], ["--config=a.yaml"], ["-c", "a.yaml"], ["-c=a.yaml"]])
def test_beside_a_checkpoint_that_was_moved_the_configuration_may_be_given(finished, tmp_path, given):
    moved = shutil.copy(finished / "checkpoints" / "best.ckpt", tmp_path / "best.ckpt")
    arguments = ["test", f"--ckpt_path={moved}"]
    with pytest.raises(ConfigurationError, match="with `--config`"):
        with_checkpoint_config(arguments)
    assert with_checkpoint_config([*arguments, *given]) == [*arguments, *given]


def test_no_checkpoint_nothing_changed():
    for arguments in (["fit"], ["fit", "--ckpt_path=last"], ["fit", "--config", "a.yaml"]):
        assert with_checkpoint_config(arguments) == arguments


def test_model_options_are_refused_before_the_checkpoint_is_read():
    with pytest.raises(ConfigurationError, match=r"--model\.learning_rate"):
        with_checkpoint_config(["test", "--ckpt_path=none.ckpt", "--model.learning_rate", "1"])
