"""Options that say where jobs run: every mistake is one line before anything runs."""

import argparse
import sys

import pytest

from attn_lightning.errors import ConfigurationError
from attn_lightning.study.engines import local
from attn_lightning.study.engines.choice import add_engine_options, make_engine


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.setattr(local.LocalEngine, "warm_up", lambda self: None)

    def made(*arguments, count=9):
        parser = argparse.ArgumentParser()
        add_engine_options(parser, "cells")
        return make_engine(parser.parse_args(arguments), tmp_path, count)

    return made


def test_on_this_machine_there_are_no_more_jobs_than_cells(make, monkeypatch):
    monkeypatch.setattr("attn_lightning.study.engines.choice.cores", lambda: 64)
    assert make().jobs == 4
    assert make("--jobs", "20").jobs == 9
    assert make("--jobs", "2", count=1).jobs == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--jobs", "0"], "`--jobs` to be a finite number at least 1, but got 0"),
        (["--on", "lokal"], r"but got 'lokal'; choose one. Did you mean local\?"),
        (["--on", "slurm", "--slurm.extra", "account"], "KEY=VALUE, but got"),
        (["--slurm.partition", "gpu"], "Expected `--slurm.partition` with `--on slurm`, but got `--on local`"),
        (["--ray.num_gpus", "0.5", "--on", "slurm"], "Expected `--ray.num_gpus` with `--on ray`, but got `--on slurm`"),
        (["--slurm.time", "60", "--on", "ray://here:1"], "`--slurm.time` with `--on slurm`"),
    ],
)
def test_what_cannot_be_is_one_line(make, arguments, says):
    with pytest.raises(ConfigurationError, match=says) as error:
        make(*arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("place", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_extra_says_what_to_install(make, monkeypatch, place, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"attn_lightning.study.engines.on_{place}", raising=False)
    with pytest.raises(ConfigurationError, match=rf"pip install 'attn-lightning\[{place}\]'"):
        make("--on", place)
