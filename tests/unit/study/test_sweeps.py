"""Sweep files: what an agent would run, and one error for each mistake before anything runs."""

import itertools

import pytest

from attn_lightning.errors import ConfigurationError
from attn_lightning.study.sweeps import as_part, check_sweep, read_sweep

COMMAND = "['${env}', '${interpreter}', -m, attn_lightning, fit, --config, ivat_planted, '${args}']"


@pytest.fixture
def written(tmp_path):
    """The path of a sweep file with these contents."""

    def write(parameters, method="random", command=COMMAND, rest="metric: {name: best/val/accuracy, goal: maximize}"):
        path = tmp_path / "sweep.yaml"
        path.write_text(f"command: {command}\nmethod: {method}\n{rest}\nparameters:\n{parameters}")
        return path

    return write


def test_a_grid_gives_every_combination_once(written):
    sweep = read_sweep(written("  method.epsilon: {values: [1, 2]}\n  method.xi: {values: [0.1, 1.0]}\n", "grid"))
    found = [command[len(sweep.arguments) :] for command in sweep.commands()]
    expected = [[f"--method.epsilon={a}", f"--method.xi={b}"] for a, b in itertools.product((1, 2), (0.1, 1.0))]
    assert sorted(found) == sorted(expected)
    assert sweep.arguments == ("fit", "--config", "ivat_planted")


def test_ranges_are_tried_at_both_ends(written):
    sweep = read_sweep(
        written(
            "  a: {values: [x, y]}\n  b: {min: 1, max: 5}\n  c: {distribution: log_uniform_values, min: 0.1, max: 2}\n"
        )
    )
    assert [parameter.kind for parameter in sweep.parameters] == ["choice", "integer", "log"]
    found = {tuple(command[len(sweep.arguments) :]) for command in sweep.commands()}
    assert {("--a=x", "--b=1", "--c=0.1"), ("--a=y", "--b=1", "--c=0.1")} <= found
    assert ("--a=x", "--b=5", "--c=0.1") in found
    assert ("--a=x", "--b=1", "--c=2.0") in found


def test_a_nested_parameter_is_one_value(written):
    nested = "  method:\n    parameters:\n      class_path: {values: [AttentionAT, AttentionVAT]}\n"
    sweep = read_sweep(written(nested, "grid"))
    assert sweep.parameters[0].values == ({"class_path": "AttentionAT"}, {"class_path": "AttentionVAT"})


@pytest.mark.parametrize(
    ("parameters", "options", "message"),
    [
        ("  a: {min: 2.0, max: 1.0}\n", {}, "`min` below `max`"),
        ("  a: {min: 0.0, max: 1.0, distribution: log_uniform_values}\n", {}, "above 0"),
        ("  a: {min: .inf, max: 1.0}\n", {}, "finite"),
        ("  a: {min: 1, max: 2.5, distribution: int_uniform}\n", {}, "whole numbers"),
        ("  a: {min: 1, max: 2, distribution: unifrom}\n", {}, "Did you mean uniform"),
        ("  a: {min: 1.0, max: 2.0}\n", {"method": "grid"}, "lists of `values`"),
        ("  a: {values: []}\n", {}, "not empty"),
        ("  a: {values: [null]}\n", {}, "null"),
        ("  a: 3\n", {}, "a mapping"),
        ("  a: {values: [1]}\n", {"method": "baysian"}, "`method`"),
        ("  a: {values: [1]}\n", {"command": "[python, train.py]"}, "`command`"),
        ("  a: {values: [1]}\n", {"command": COMMAND.replace("'${args}'", "'${args_no_hyphens}'")}, "`command`"),
        ("  a: {min: 1.0, max: 2.0}\n", {"method": "bayes", "rest": "program: x"}, "`metric`"),
        ("  a: {values: [1]}\n", {"rest": "metric: {name: a, goal: up}"}, "goal"),
    ],
)
def test_a_mistake_is_one_line(written, parameters, options, message):
    with pytest.raises(ConfigurationError, match=message) as error:
        read_sweep(written(parameters, **options))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("names", [("method", "method.epsilon"), ("method.epsilon", "method")])
def test_a_class_and_its_options_are_one_part(names):
    values = {"method": "AttentionVAT", "method.epsilon": 2.5}
    expected = {"method": {"class_path": "AttentionVAT", "init_args": {"epsilon": 2.5}}}
    assert as_part({name: values[name] for name in names}) == expected


def test_options_are_nested_as_a_file_has_them():
    values = {"method.class_path": "AttentionVAT", "method.init_args.xi": 0.1, "model.backbone.encoder.hidden_size": 64}
    assert as_part({"seed_everything": 1, **values}) == {
        "seed_everything": 1,
        "method": {"class_path": "AttentionVAT", "init_args": {"xi": 0.1}},
        "model": {"backbone": {"init_args": {"encoder": {"hidden_size": 64}}}},
    }


def test_a_command_that_fit_refuses_is_named(written):
    sweep = read_sweep(written("  method.epsilom: {values: [1]}\n"))

    def refuse(arguments):
        raise ConfigurationError("no such option")

    with pytest.raises(ConfigurationError, match=r"--method.epsilom=1: no such option"):
        check_sweep(sweep, refuse)
    assert check_sweep(sweep, lambda _: {}) == 1
