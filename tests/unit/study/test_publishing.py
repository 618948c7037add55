"""Results of a study in a file that people write too."""

from dataclasses import replace
from pathlib import Path

import pytest

from attn_lightning.errors import ConfigurationError
from attn_lightning.study.configuration import Study, Variant
from attn_lightning.study.expansion import Cell
from attn_lightning.study.publishing import arithmetic_of, block, publish, read
from attn_lightning.study.state import CellState
from attn_lightning.study.table import tables

PAGE = "# Results\n\n<!-- study a -->\nold\n<!-- end -->\nread by hand\n\n<!-- study b -->\n<!-- end -->\nlast\n"


def variant(name):
    return Variant(name, name, name, ())


STUDY = Study(
    name="tried",
    experiments=Path(),
    methods=(variant("vanilla"), variant("iat")),
    data=(variant("planted"),),
    options=(variant(""),),
    seeds=(0, 1),
    metrics=("test/accuracy", "test/log_loss"),
    baseline="vanilla",
)


def results(*environments):
    cells = [Cell(m, "planted", "", s, Path("x.yaml"), (), m, False) for m in ("vanilla", "iat") for s in (0, 1)]
    states = [
        CellState("complete", {"test": {"test/accuracy": 0.5 + place / 10}, "environment": environment})
        for place, environment in enumerate(environments)
    ]
    return list(zip(cells, states + [CellState("missing")] * (4 - len(states)), strict=True))


def made_by(version, commit):
    return {"packages": {"attn-lightning": version, "torch": "2"}, "commit": commit}


def measured(found):
    return block("make study STUDY=tried", found, tables(STUDY, found))


def test_only_what_stands_between_the_marks_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    publish(page, "a", "new\n\n| x |")
    assert page.read_text() == PAGE.replace("old", "new\n\n| x |")


def test_publishing_twice_changes_nothing(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    publish(page, "b", "new")
    once = page.read_text()
    publish(page, "b", "new")
    assert page.read_text() == once


@pytest.mark.parametrize("before", ["", "# Results", "# Results\n", "# Results\n\n", PAGE])
def test_a_study_without_marks_is_put_at_the_end(tmp_path, before):
    page = tmp_path / "page.md"
    page.write_text(before)
    publish(page, "mine", "new")
    section = "## mine\n\n<!-- study mine -->\nnew\n<!-- end -->\n"
    assert page.read_text() == (before.rstrip("\n") + "\n\n" if before else "") + section


def test_a_file_that_does_not_exist_is_made(tmp_path):
    publish(tmp_path / "page.md", "mine", "new")
    assert (tmp_path / "page.md").read_text() == "## mine\n\n<!-- study mine -->\nnew\n<!-- end -->\n"


@pytest.mark.parametrize(
    "page",
    [
        "<!-- study a -->\n",
        "<!-- end -->\n<!-- study a -->\n",
        "<!-- study a -->\n<!-- end -->\n<!-- study a -->\n<!-- end -->\n",
        "<!-- study a -->\n<!-- study b -->\n<!-- end -->\n",
    ],
)
def test_marks_that_are_not_one_pair_are_refused_and_the_file_is_kept(tmp_path, page):
    path = tmp_path / "page.md"
    path.write_text(page)
    with pytest.raises(ConfigurationError, match="mend them by hand"):
        publish(path, "a", "new")
    assert path.read_text() == page


def test_files_that_cannot_be_read_are_refused(tmp_path):
    binary = tmp_path / "page.md"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="to be a text file"):
        read(binary, "a")
    with pytest.raises(ConfigurationError, match="make the folder first"):
        read(tmp_path / "missing" / "page.md", "a")


def test_the_block_has_command_version_runs_and_the_overview():
    lines = measured(results(*[made_by("0.2.0", "0123456789abcdef")] * 4)).splitlines()
    assert lines[0].startswith(
        "`make study STUDY=tried`: 4 of 4 runs, measured with 0.2.0 (commit 0123456). Mean over seeds"
    )
    assert lines[2] == "### planted"
    assert lines[4:] == [
        "| method | seeds | accuracy ↑ | log_loss ↓ |",
        "|---|---|---:|---:|",
        # Two seeds: 12.7 standard errors of 0.05 and more to both sides, which accuracy has no room for.
        "| vanilla | 2/2 | 0.550 [0.000, 1.000] | - |",
        "| iat | 2/2 | 0.750 [0.000, 1.000] | - |",
    ]


def test_runs_of_several_versions_are_counted_and_missing_ones_said():
    old, new = made_by("0.1.0", "a" * 40), made_by("0.2.0", None)
    head = measured(results(old, new, new)).splitlines()[0]
    expected = "3 of 4 runs, measured with 0.1.0 (commit aaaaaaa; 1 of them) and 0.2.0 (no commit; 2 of them)"
    assert expected in head


def test_data_that_was_not_run_is_a_line_and_no_table():
    both = replace(STUDY, data=(variant("planted"), variant("sst")))
    other = [Cell(m, "sst", "", s, Path("x.yaml"), (), m, False) for m in ("vanilla", "iat") for s in (0, 1)]
    found = [*results({}), *((cell, CellState("missing")) for cell in other)]
    written = block("make study", found, tables(both, found))
    assert "### planted" in written
    assert "### sst" not in written
    assert written.splitlines()[-1] == "Not run: sst."


def test_a_record_without_a_version_says_so():
    assert "measured with an unknown version (no commit)." in measured(results({}))


def test_nothing_is_published_without_a_finished_run():
    with pytest.raises(ConfigurationError, match="run the study first"):
        measured(results())


def on(threads):
    found = {"threads": threads, "kernels": "AVX2", "machine": "x86_64", "torch": "2.13.0+cpu"}
    return {**made_by("0.1.0", "a" * 40), "arithmetic": found}


def test_runs_on_other_arithmetic_say_so():
    one, two = "1 thread, AVX2 kernels, x86_64, torch 2.13.0+cpu", "2 threads, AVX2 kernels, x86_64, torch 2.13.0+cpu"
    assert f"differ in their arithmetic ({one}; {two}), with which" in measured(results(on(1), on(2)))
    for alike in (results(on(2), on(2)), results(made_by("0.1.0", None), on(2))):
        assert "arithmetic" not in measured(alike)


@pytest.mark.parametrize(
    "record", [{}, {"environment": None}, {"environment": "x"}, {"environment": {"arithmetic": 1}}]
)
def test_a_record_that_does_not_say_where_it_ran_has_no_arithmetic(record):
    assert arithmetic_of(record) == ""
