"""The command `search`: its options and files; the search itself is tested with its room."""

import pytest

from attn_lightning.commands.search import search_command
from attn_lightning.errors import ConfigurationError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ivat_sst", "--trials=0"], "`--trials` to be a finite number at least 1, but got 0"),
        (["ivat_sst", "--jobs=-1"], "`--jobs` to be a finite number at least 1, but got -1"),
        (["ivat_sst", "--trials=many"], "many"),
        (["ivat_ssst"], "Did you mean ivat_sst or labels_sst"),
        (["nowhere/mine.yaml"], "nowhere/mine.yaml does not exist"),
        ([], "sweep"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_written(arguments, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message) as error:
        search_command([*arguments, "--root", str(tmp_path)])
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
