"""The command `claims`."""

import pytest
import yaml

from attn_lightning.commands.claims import claims_command
from attn_lightning.commands.validation import shared_validator
from attn_lightning.errors import ConfigurationError
from support.archived import entries_of, rewrite, write
from support.studies import tiny_study


@pytest.fixture
def claims(tmp_path):
    study = tiny_study(tmp_path / "tiny.yaml", ["vanilla", "ivat"], ["test/accuracy"])
    write(study, {"vanilla": [0.5, 0.5], "ivat": [0.6, 0.61]}, shared_validator().parse)
    claim = {"claim": "[bold]It | helps", "source": "x", "study": str(study), "data": "planted", "method": "ivat"}
    rest = {"against": "vanilla", "metric": "test/accuracy", "direction": "higher"}
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump({"claims": [{**claim, **rest}]}))
    return path


def test_table_and_figure(claims, tmp_path, capsys):
    page, figure = tmp_path / "page.md", tmp_path / "claims.svg"
    assert claims_command([str(claims), "--publish", str(page), "--figure", str(figure)]) == 0
    assert "[bold]It | helps" in capsys.readouterr().out
    written = page.read_text()
    assert "<!-- study claims -->" in written
    assert "It \\| helps" in written
    assert "+0.105" in written
    drawn = figure.read_bytes()
    assert drawn.startswith(b"<?xml")
    # Again: the same bytes in its place.
    assert claims_command([str(claims), "--publish", str(page), "--figure", str(figure)]) == 0
    assert (page.read_text(), figure.read_bytes()) == (written, drawn)


def test_one_seed_has_a_difference_and_no_interval(claims, tmp_path, capsys):
    path = tmp_path / "tiny.jsonl.gz"
    rewrite(path, [entry for entry in entries_of(path) if "seed_0" in entry["cell"]])
    assert claims_command([str(claims)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "1/2" in printed
    assert "+0.100" in printed
    assert "nan" not in printed


@pytest.mark.parametrize("name", ["claims.txt", "nowhere/claims.svg"])
def test_a_figure_that_cannot_be_is_refused(claims, tmp_path, name):
    with pytest.raises(ConfigurationError, match="`--figure`"):
        claims_command([str(claims), "--figure", str(tmp_path / name)])


def test_nothing_to_draw_is_said(claims, tmp_path):
    (tmp_path / "tiny.jsonl.gz").unlink()
    with pytest.raises(ConfigurationError, match="none to draw"):
        claims_command([str(claims), "--figure", str(tmp_path / "claims.svg")])
