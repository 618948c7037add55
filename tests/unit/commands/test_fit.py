"""Pieces of the training command that a whole run does not show."""

import yaml


def test_later_options_win(cli):
    outcome = cli("fit", "--data=Planted", "--seed_everything=1", "--seed_everything=2", "--print_config")
    assert outcome.code == 0, outcome.err
    assert yaml.safe_load(outcome.out)["seed_everything"] == 2
