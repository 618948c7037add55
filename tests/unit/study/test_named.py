"""Studies by name, and those that differ from another one."""

from pathlib import Path

import pytest

from attn_lightning.errors import ConfigurationError
from attn_lightning.study.named import named_study, study_names

WHOLE = """
methods: [vanilla, iat]
data: [sst]
seeds: 3
options: {trainer.max_epochs: 4, run.suite: none}
metrics: [test/f1]
"""


@pytest.fixture
def studies(folder):
    """A folder with one study, and variants as given."""

    def write(variants):
        (folder / "whole.yaml").write_text(WHOLE)
        (folder / "variants.yaml").write_text(variants)
        return folder

    return write


def test_a_variant_is_the_file_that_says_the_same(studies):
    folder = studies(
        "short: {of: whole, data: [planted], options: {trainer.max_epochs: 1}}\nless: {of: short, seeds: 1}"
    )
    contents = (
        WHOLE.replace("max_epochs: 4", "max_epochs: 1").replace("[sst]", "[planted]").replace("seeds: 3", "seeds: 1")
    )
    (folder / "written.yaml").write_text(contents)
    variant, written = named_study("less", folder), named_study("written", folder)
    assert variant.name == "less"
    for key in ("methods", "data", "options", "seeds", "metrics", "baseline", "experiments", "require"):
        assert getattr(variant, key) == getattr(written, key)


def test_a_file_wins_over_a_variant_of_its_name(studies):
    folder = studies("whole: {of: whole, seeds: 1}")
    assert named_study("whole", folder).seeds == (0, 1, 2)


def test_the_names_are_those_of_files_and_variants(studies):
    assert study_names(studies("short: {of: whole, seeds: 1}")) == ["short", "whole"]


def test_an_unknown_study_lists_the_nearest_and_all(studies):
    folder = studies("short: {of: whole, seeds: 1}")
    with pytest.raises(ConfigurationError, match=r"Did you mean short\? All: short, whole\."):
        named_study("shorts", folder)
    with pytest.raises(ConfigurationError, match="has no other"):
        named_study("shorts", folder / "empty")
    assert named_study(str(folder / "whole.yaml"), Path("elsewhere")).name == "whole"


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ("short: {of: hole}", r"to be a study or an entry above it, but got 'hole'; correct it\. Did you mean whole"),
        ("short: {of: late}\nlate: {of: whole}", "but got 'late'"),
        ("short: {of: short}", "but got 'short'"),
        ("short: {seeds: 1}", "to have mappings with `of` by name, but got 'short'"),
        ("short: 3", "to have mappings with `of` by name, but got 'short'"),
        ("short: {of: whole, seed: 1}", "seeds"),
    ],
)
def test_a_mistake_in_the_variants_is_one_error(studies, variants, message):
    with pytest.raises(ConfigurationError, match=message):
        named_study("short", studies(variants))


def test_the_file_of_the_variants_is_no_study(studies):
    with pytest.raises(ConfigurationError, match="holds several: short; name one"):
        named_study("variants", studies("short: {of: whole}"))
