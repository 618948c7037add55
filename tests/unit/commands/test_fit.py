"""Pieces of the training command that a whole run does not show."""

import pytest
import yaml

from attn_lightning.commands.arguments import with_checkpoint_config
from attn_lightning.commands.parsing import class_change_resets_arguments
from attn_lightning.errors import ConfigurationError


def printed(outcome) -> dict:
    assert outcome.code == 0, outcome.err
    return yaml.safe_load(outcome.out)


def test_a_change_of_class_starts_from_its_own_defaults(cli):
    contents = printed(
        cli("fit", "--data=Planted", "--method=AttentionIVAT", "--method.weight=0.25", "--method=AttentionAT",
            "--method.epsilon=3", "--print_config")
    )  # fmt: skip
    assert contents["method"]["init_args"]["weight"] == 1.0
    assert contents["method"]["init_args"]["epsilon"] == 3.0


def test_the_same_class_again_keeps_its_arguments(cli):
    options = ["--method=AttentionAT", "--method.weight=0.25", "--method=AttentionAT", "--print_config"]
    contents = printed(cli("fit", "--data=Planted", *options))
    assert contents["method"]["init_args"]["weight"] == 0.25


def test_the_patch_is_taken_back():
    from jsonargparse import _typehints

    before = _typehints.discard_init_args_on_class_path_change
    with pytest.raises(ZeroDivisionError), class_change_resets_arguments():
        raise ZeroDivisionError
    assert _typehints.discard_init_args_on_class_path_change is before


def test_later_options_win(cli):
    contents = printed(cli("fit", "--data=Planted", "--seed_everything=1", "--seed_everything=2", "--print_config"))
    assert contents["seed_everything"] == 2


def test_a_checkpoint_brings_its_configuration(finished):
    path = finished / "checkpoints" / "best.ckpt"
    for given in ([f"--ckpt_path={path}"], ["--ckpt_path", str(path)]):
        arguments = with_checkpoint_config(["test", *given])
        assert arguments[:3] == ["test", "--config", str(finished / "config.yaml")]
        assert "--run.name=ivat_planted" in arguments
        assert arguments[-len(given) :] == given


def test_no_checkpoint_nothing_changed():
    for arguments in (["fit"], ["fit", "--ckpt_path=last"], ["fit", "--config", "a.yaml"]):
        assert with_checkpoint_config(arguments) == arguments


def test_model_options_are_refused_before_the_checkpoint_is_read():
    with pytest.raises(ConfigurationError, match=r"--model\.learning_rate"):
        with_checkpoint_config(["test", "--ckpt_path=none.ckpt", "--model.learning_rate", "1"])
