"""Every command of a study is parsed before anything runs, and each configuration once."""

from pathlib import Path

import pytest

from attn_lightning.backbone.published import ENCODER
from attn_lightning.data.revision import model_place
from attn_lightning.errors import ConfigurationError
from attn_lightning.study.expansion import expand
from attn_lightning.study.validation import validate

ROOT = Path("runs")


class Parser:
    """Counts what it is asked, and refuses some of it."""

    def __init__(self, refused=()):
        self.commands, self.refused = [], refused

    def __call__(self, arguments):
        self.commands.append(arguments)
        if (name := next(value for value in arguments if value.startswith("--run.name="))) in self.refused:
            raise ConfigurationError(f"no {name}")
        run = {"root": "runs", "test": True, "control": True, "suite": "fast"}
        run |= {"suite_untrained": True, "suite_examples": 10, "suite_explainers": "attention"}
        return {"seed_everything": 0, "method": {"from": arguments[-1]}, "run": run}


def revisions(config):
    """No file of the data is there."""
    return {}


def test_cells_that_differ_in_the_seed_only_are_parsed_once(study):
    cells = expand(study("methods: [vanilla, iat]\ndata: [planted]\nseeds: [3, 5]\n"))
    parse = Parser()
    found = validate(cells, ROOT, parse, revisions)
    assert len(parse.commands) == 2
    assert [wanted.config["seed_everything"] for wanted in found] == [cell.seed for cell in cells] == [3, 3, 5, 5]
    assert "root" not in found[0].config["run"], "only what decides about results is kept"


def test_a_cell_that_begins_from_another_run_is_parsed_for_itself(study):
    text = "methods: {vanilla: {}, iat: {method.base: '{vanilla}/best.ckpt'}}\ndata: [planted]\nseeds: 2\n"
    cells = expand(study(text))
    parse = Parser()
    found = validate(cells, ROOT, parse, revisions)
    assert len(parse.commands) == 3
    bases = [wanted.config["method"]["from"] for cell, wanted in zip(cells, found, strict=True) if cell.bases]
    assert bases == [f"--method.base=runs/vanilla_planted/seed_{seed}/best.ckpt" for seed in (0, 1)]


def test_a_cell_whose_options_follow_the_seed_is_parsed_for_itself(study):
    cells = expand(study("methods: {vanilla: {}, iat: {method.base: '{seed}'}}\ndata: [planted]\nseeds: [3, 5]\n"))
    parse = Parser()
    found = validate(cells, ROOT, parse, revisions)
    assert len(parse.commands) == 3
    options = [
        wanted.config["method"]["from"] for cell, wanted in zip(cells, found, strict=True) if cell.method == "iat"
    ]
    assert options == ["--method.base=3", "--method.base=5"]


def test_a_model_that_the_study_itself_makes_is_not_held_to_what_it_was(study):
    text = "methods: {vanilla: {}, iat: {method.base: '{vanilla}/best.ckpt'}}\ndata: [planted]\nseeds: 1\n"
    cells = expand(study(text))
    # The files of a pretrained encoder are there before the study: another encoder in them is other work.
    rest = {"": "a", model_place(ENCODER): "c"}
    now = {**rest, model_place("base"): "b"}
    found = validate(cells, ROOT, Parser(), lambda config: now)
    assert [wanted.revisions for wanted in found] == [rest if cell.bases else now for cell in cells]


def test_all_commands_that_are_refused_are_named_in_one_message(study):
    cells = expand(study("methods: [vanilla, iat, relation]\ndata: [planted]\nseeds: 2\n"))
    parse = Parser(refused=("--run.name=iat_planted", "--run.name=relation_planted"))
    with pytest.raises(ConfigurationError) as caught:
        validate(cells, ROOT, parse, revisions)
    first, *refused = str(caught.value).splitlines()
    assert "got 2 it refuses" in first
    assert [line.split(":")[0].strip() for line in refused] == ["iat_planted", "relation_planted"]
    assert len(parse.commands) == 3


def test_only_the_first_seed_is_asked_for_the_controls(study):
    """Asked of every seed, what only the first one measures would leave all others incomplete for ever."""
    first, second = validate(expand(study("methods: [iat]\ndata: [planted]\nseeds: 2\n")), ROOT, Parser(), revisions)
    assert set(first.parts) == {"test", "control", "suite"}
    assert set(second.parts) == {"test", "suite"}
    untrained = [wanted.parts["suite"]["suite_untrained"] for wanted in (first, second)]
    assert untrained == [True, False]
