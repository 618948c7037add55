"""Help and errors of the training commands."""

import re
import warnings

import pytest
import yaml
from jsonargparse import ArgumentParser

from attn_lightning.commands.parsing import OneLineErrorParser, class_change_resets_arguments
from attn_lightning.commands.validation import shared_validator


class _Kept:
    """A class of the command line that Lightning would make by a function of its own."""

    def __init__(self, number: int = 1) -> None:
        self.number = number


def test_the_old_names_that_lightning_calls_work_without_a_warning(monkeypatch):
    """Lightning 2.6 uses names of jsonargparse that are deprecated; nothing of that may reach a run, now or in 5.0."""
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "all")
    parser = OneLineErrorParser(exit_on_error=False)
    parser.add_class_arguments(_Kept, "kept")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parser.add_instantiator(lambda kind, number: kind(number + 1), _Kept)
        config = parser.parse_args(["--kept.number=3"])
        assert parser.instantiate_classes(config).kept.number == 4
        assert yaml.safe_load(parser.dump(config, skip_none=False)) == {"kept": {"number": 3}}


@pytest.fixture(scope="module")
def helps(cli):
    found = {command: cli(command, "--help") for command in ("fit", "test")}
    assert all(outcome.code == 0 and not outcome.err for outcome in found.values())
    return {command: outcome.out for command, outcome in found.items()}


def test_the_help_names_the_program_and_how_it_is_called(helps):
    assert helps["fit"].startswith("usage: python -m attn_lightning fit --config METHOD_DATA [--OPTION=VALUE ...]\n")
    assert helps["test"].startswith("usage: python -m attn_lightning test --ckpt_path FILE [--OPTION=VALUE ...]\n")
    for text in helps.values():
        assert not re.search(r"__main__|<function|<lambda>| object at 0x|Deprecat", text)


def test_the_help_is_grouped_by_what_options_are_for(helps):
    titles = re.findall(r"^(\w+)(?: \(.*\))?:$", helps["fit"], re.MULTILINE)
    assert titles == ["options", "trainer", "model", "data", "method", "run", "checkpoint"]
    for group, option in (("trainer", "--trainer.max_epochs"), ("run", "--run.root"), ("checkpoint", "--ckpt_path")):
        below = helps["fit"].split(f"\n{group}")[1].split("):\n")[-1 if group == "checkpoint" else 1]
        assert option in below


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--trainer.max_epoch=3"], "Did you mean trainer.max_epochs?"),
        (["--method=AttentionVAT", "--method.epsilonn=3"], "Did you mean epsilon?"),
        (["--method=AttentionVATT"], "Did you mean AttentionVAT?"),
        (["--data.max_lenght=3"], "Did you mean max_length?"),
    ],
)
def test_a_misspelled_option_comes_with_the_nearest(cli, options, hint):
    outcome = cli("fit", "--data=Planted", *options)
    assert outcome.code == 2
    assert hint in outcome.err
    assert "Traceback" not in outcome.err


def test_the_card_of_a_class_comes_before_its_options(cli):
    outcome = cli("fit", "--model.backbone.normalizer.help", "Sparsemax")
    assert outcome.code == 0
    assert outcome.out.startswith("Sparsemax: ")


def test_a_change_of_class_starts_from_its_own_defaults(cli):
    options = ["--method=AttentionIVAT", "--method.weight=0.25", "--method=AttentionAT", "--method.epsilon=3"]
    outcome = cli("fit", "--data=Planted", *options, "--print_config")
    assert outcome.code == 0, outcome.err
    found = yaml.safe_load(outcome.out)["method"]["init_args"]
    assert (found["weight"], found["epsilon"]) == (1.0, 3.0)


def test_the_same_class_again_keeps_its_arguments(cli):
    options = ["--method=AttentionAT", "--method.weight=0.25", "--method=AttentionAT", "--print_config"]
    outcome = cli("fit", "--data=Planted", *options)
    assert yaml.safe_load(outcome.out)["method"]["init_args"]["weight"] == 0.25


def test_the_patch_is_taken_back():
    from jsonargparse import _typehints

    before = _typehints.discard_init_args_on_class_path_change
    with pytest.raises(ZeroDivisionError), class_change_resets_arguments():
        raise ZeroDivisionError
    assert _typehints.discard_init_args_on_class_path_change is before


EMPTY = {
    "model.learning_rate": "model: {learning_rate: }",
    "run.suite": "run: {suite: null}",
    "epsilon": "method: {class_path: AttentionIVAT, init_args: {epsilon: null}}",
    "batch_size": "data: {class_path: Planted, init_args: {batch_size: ~}}",
    "dimension": "data: {class_path: Planted, init_args: {embeddings: {class_path: RandomEmbeddings, "
    "init_args: {dimension: }}}}",
}


@pytest.mark.parametrize("option", EMPTY)
def test_an_empty_value_is_no_number(option, cli, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"{'' if EMPTY[option].startswith('data:') else 'data: Planted'}\n{EMPTY[option]}\n")
    outcome = cli("fit", "--config", path)
    assert outcome.code == 2
    first, *_ = outcome.err.splitlines()
    assert first.startswith("error: ")
    assert option in first


def test_classes_within_classes_are_checked_once_and_not_twice_for_each_level(monkeypatch):
    checks, check = [], ArgumentParser.validate

    def counted(self, *arguments, **options):
        checks.append(self)
        return check(self, *arguments, **options)

    validator = shared_validator()
    monkeypatch.setattr(ArgumentParser, "validate", counted)
    validator.options(["fit", "--data=Planted"])
    # Twice for each level makes 108 of these 37, and most of the start of a run.
    assert len(checks) < 60


def test_what_has_to_be_given_is_asked_for(cli):
    outcome = cli("fit", "--data=TextFiles")
    assert "arguments are required: train" in outcome.err


@pytest.mark.parametrize(
    ("place", "part"),
    [
        ("backbone", "Backbone"),
        ("backbone.init_args.encoder", "Encoder"),
        ("backbone.init_args.normalizer", "Normalizer"),
    ],
)
@pytest.mark.parametrize("foreign", ["os.system", "os.makedirs"])
def test_a_function_in_the_place_of_a_class_is_refused_and_not_called(cli, tmp_path, place, part, foreign):
    """jsonargparse takes any function that it gets the arguments of."""
    made = tmp_path / "made"
    tree = {"class_path": "AttentionClassifier", "init_args": {}} if "." in place else {}
    arguments = {"os.system": {"command": f"mkdir {made}"}, "os.makedirs": {"name": str(made)}}[foreign]
    named = {"class_path": foreign, "init_args": arguments}
    if "." in place:
        tree["init_args"][place.rpartition(".")[2]] = named
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"data": "Planted", "model": {"backbone": tree or named}}))
    outcome = cli("fit", "--config", path, f"--run.root={tmp_path / 'runs'}")
    assert outcome.code == 2
    assert f"to be a class of {part}, but got {foreign}" in outcome.err
    assert len(outcome.err.strip().splitlines()) == 2, "the message, and where help is"
    assert not made.exists()


@pytest.mark.parametrize("name", ["much", "", "much.too", ".much", "1e400", "é/.."])
def test_a_name_that_is_no_class_is_one_line(cli, tmp_path, name):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"data": "Planted", "model": {"backbone": {"class_path": name}}}))
    outcome = cli("fit", "--config", path, f"--run.root={tmp_path / 'runs'}")
    assert outcome.code == 2
    assert len(outcome.err.strip().splitlines()) == 2, "the message, and where help is"
