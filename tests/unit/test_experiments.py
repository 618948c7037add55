"""Names of experiments: what they are made of, and one clear error for every mistake."""

from pathlib import Path

import pytest

from attn_lightning.errors import ConfigurationError
from attn_lightning.experiments import Experiments, as_option, find_experiment, read_configuration

VARIANTS = """
methods:
  strong: {of: ivat, method.epsilon: 5}
  stronger: {of: strong, method.weight: 2.0}
  both: {of: [ivat, sharp]}
data:
  small: {of: imdb, data.max_examples: 10}
experiments:
  strong_imdb: {trainer.max_epochs: 9}
  other: {of: [ivat, imdb], trainer.callbacks: null}
"""


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "base", "method/ivat", "method/sharp", "data/imdb", "data/sharp_imdb", "data/toy_dots", "whole")
    (tmp_path / "variants.yaml").write_text(VARIANTS)
    return tmp_path


def write(folder, *names):
    for name in names:
        path = folder / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# What {name} is.\ntrainer: {{max_epochs: 3}}\n")


@pytest.mark.parametrize(
    ("name", "files", "options"),
    [
        ("ivat_imdb", ["base", "data/imdb", "method/ivat"], []),
        # The longest name of data that fits: not imdb with a method `ivat_sharp`.
        ("ivat_sharp_imdb", ["base", "data/sharp_imdb", "method/ivat"], []),
        ("sharp_imdb", ["base", "data/imdb", "method/sharp"], []),
        ("toy_dots_ivat", ["base", "data/toy_dots", "method/ivat"], []),
        ("ivat_toy_dots", ["base", "data/toy_dots", "method/ivat"], []),
        ("whole", ["whole"], []),
        ("stronger_imdb", ["base", "data/imdb", "method/ivat"], [("method.epsilon", "5"), ("method.weight", "2.0")]),
        ("both_imdb", ["base", "data/imdb", "method/ivat", "method/sharp"], []),
        ("ivat_small", ["base", "data/imdb", "method/ivat"], [("data.max_examples", "10")]),
        # Its own option comes last and wins.
        (
            "strong_imdb",
            ["base", "data/imdb", "method/ivat"],
            [("method.epsilon", "5"), ("trainer.max_epochs", "9")],
        ),
        ("other", ["base", "method/ivat", "data/imdb"], [("trainer.callbacks", "null")]),
    ],
)
def test_what_a_name_is_made_of(folder, name, files, options):
    found = Experiments(folder).find(name)
    assert found.files == tuple(folder / f"{file}.yaml" for file in files)
    assert found.options == tuple(options)
    expected = [argument for path in found.files for argument in ("--config", str(path))]
    assert found.arguments() == [*expected, *(f"--{option}={value}" for option, value in options)]


def test_a_file_wins_over_parts_and_variants(folder):
    write(folder, "ivat_imdb", "strong_imdb")
    for name in ("ivat_imdb", "strong_imdb"):
        assert Experiments(folder).find(name).files == (folder / f"{name}.yaml",)


def test_a_folder_needs_neither_base_nor_parts(tmp_path):
    write(tmp_path, "mine")
    assert Experiments(tmp_path).find("mine").files == (tmp_path / "mine.yaml",)
    write(tmp_path, "method/ivat", "data/imdb")
    assert len(Experiments(tmp_path).find("ivat_imdb").files) == 2


@pytest.mark.parametrize(
    ("name", "near"), [("ivat_imbd", "ivat_imdb"), ("toy_dot_ivat", "toy_dots_ivat"), ("hole", "whole"), ("base", "")]
)
def test_an_unknown_name_lists_the_nearest(folder, name, near):
    with pytest.raises(ConfigurationError, match=f"no '{name}'.*{near}.*attn_lightning experiments"):
        Experiments(folder).find(name)


def test_every_part_has_its_line(folder):
    found = Experiments(folder)
    assert found.methods["ivat"].line == "What method/ivat is."
    assert found.methods["stronger"].line == "strong with method.weight=2.0"
    assert found.methods["both"].line == "ivat and sharp"
    assert found.special["strong_imdb"].line == "with trainer.max_epochs=9"
    assert found.special["whole"].line == "What whole is."
    assert set(found.special) == {"whole", "strong_imdb", "other"}


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        (
            "methods: {a: {of: ivta}}",
            "'a' in .*variants.yaml to be `of` a part that stands above it.*Did you mean ivat",
        ),
        ("methods: {a: {of: b}, b: {of: ivat}}", "above it, but got 'b'"),
        ("methods: {a: {of: a}}", "above it, but got 'a'"),
        ("methods: {a: {of: [[ivat]]}}", "above it"),
        ("methods: {a: ivat}", "mappings from names to options"),
        ("methods: [a]", "mappings from names to options"),
        ("method: {a: {of: ivat}}", "mappings from names to options in methods, data, experiments"),
        ("experiments: {a: {method.x: 1}}", "'a' is no method and data"),
        ("methods: {a: {of: ivat}, a: {of: ivat}}", "`a` once"),
        ("[", "readable YAML"),
        ("- 1", "a mapping"),
    ],
)
def test_a_mistake_in_the_variants_is_one_error(folder, variants, message):
    (folder / "variants.yaml").write_text(variants)
    with pytest.raises(ConfigurationError, match=message):
        Experiments(folder)


def test_without_a_folder_the_error_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=f"folder 'experiments' with experiments, but {tmp_path} has none"):
        find_experiment("ivat_imdb")
    with pytest.raises(ConfigurationError, match=r"but nowhere/ivat_imdb\.yaml does not exist"):
        find_experiment("nowhere/ivat_imdb.yaml")


def test_what_config_may_be(folder, monkeypatch):
    expected = Experiments(folder).find("ivat_imdb")
    for value in (folder / "ivat_imdb", folder / "ivat_imdb.yaml"):
        assert find_experiment(str(value)) == expected
    assert find_experiment(str(folder / "method" / "ivat.yaml")).files == (folder / "method" / "ivat.yaml",)
    (folder / "experiments").mkdir()
    write(folder / "experiments", "mine")
    monkeypatch.chdir(folder)
    for value in ("mine", "mine.yaml", "experiments/mine"):
        assert find_experiment(value).files == (Path("experiments/mine.yaml"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainer: base.yaml\ntrainer.max_epochs: 4\n", "`trainer` once in .*, in line 1 and as `trainer.max_epochs`"),
        ("trainer.max_epochs: 4\ndata: Planted\ntrainer: {devices: 1}\n", "`trainer` once in .*line 3"),
        ("data: {init_args: {embeddings: X, embeddings.dimension: 8}}\n", "`embeddings` once"),
        ("trainer: {callbacks: [{class_path: A, class_path: B}]}\n", "`class_path` once"),
        ("data: Planted\ndata: IMDB\n", "`data` once in .*line 1 and as `data`"),
        ("data: [\n", "readable YAML in"),
        ("data: !thing 3\n", "readable YAML in"),
        ("3\n", "a mapping in"),
        ("", "a mapping in"),
    ],
)
def test_a_file_that_says_something_twice_is_refused(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message) as caught:
        find_experiment(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_in_a_file_is_read_as_well(tmp_path):
    (tmp_path / "inner.yaml").write_text("callbacks: a.yaml\ncallbacks.x: 1\n")
    (tmp_path / "outer.yaml").write_text("trainer: inner.yaml\n")
    with pytest.raises(ConfigurationError, match=r"`callbacks` once in .*inner\.yaml"):
        read_configuration(tmp_path / "outer.yaml")
    (tmp_path / "self.yaml").write_text("callbacks: self.yaml\n")
    assert read_configuration(tmp_path / "self.yaml") == {"callbacks": "self.yaml"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "data: data/mine.yaml\n",
            r"alone, but .*mine\.yaml is a part .* with `data`, `trainer`.*both: ",
        ),
        ("method: gone.yaml\n", r"name a file, but .*gone\.yaml does not exist"),
        ("trainer: outer.yaml\n", "is a part of an experiment, with `trainer`"),
    ],
)
def test_a_section_may_name_a_file_with_its_own_options_and_no_other(tmp_path, text, message):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("data: Planted\ntrainer.max_epochs: 3\n")
    (tmp_path / "options.yaml").write_text("class_path: Planted\ninit_args: {batch_size: 3}\n")
    path = tmp_path / "outer.yaml"
    path.write_text("data: options.yaml\n")
    assert find_experiment(str(path)).files == (path,)
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message) as caught:
        find_experiment(str(path))
    assert "\n" not in str(caught.value)


def test_anchors_may_be_used_often(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("a: &a {b: &b [1], c: 1}\nd: {<<: *a, e: *a}\nf: {<<: *a, c: 2}\n")
    assert read_configuration(path)["f"]["c"] == 2


ENDLESS = "a: &a [*a]\ndata: Planted\n"
HARDLY_ENDS = "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}' if k else '{}'] * 9)}]\n" for k in range(9))
DEEP = f"a: {'[' * 60}{']' * 60}\n"


@pytest.mark.parametrize("text", [ENDLESS, HARDLY_ENDS, DEEP, f"a: {'[' * 3000}{']' * 3000}\n"])
def test_what_has_no_end_is_one_error(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"levels of lists and mappings|recursion") as caught:
        find_experiment(str(path))
    assert "\n" not in str(caught.value)


def test_a_number_beyond_every_float_is_one_error(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"data: {{class_path: Planted, init_args: {{batch_size: 0x{'f' * 5000}}}}}\n")
    with pytest.raises(ConfigurationError, match=r"got one of 20,000 bits"):
        find_experiment(str(path))


@pytest.mark.parametrize("section", ["model", "run", "trainer"])
@pytest.mark.parametrize("value", ["3", "[a]", "", "1.5", "true", "1e400", "much", '"{max_epochs: 3}"', "a" * 300])
def test_a_group_of_options_is_a_mapping(tmp_path, section, value):
    path = tmp_path / "mine.yaml"
    path.write_text(f"data: Planted\n{section}: {value}\n")
    with pytest.raises(ConfigurationError, match=f"`{section}` in .* to be a mapping"):
        find_experiment(str(path))


@pytest.mark.parametrize(
    ("value", "written"),
    [(None, "null"), (True, "true"), (0.001, "0.001"), (1e-5, "1e-05"), ("[8, 16]", "[8, 16]"), ([1, 2], "[1, 2]")],
)
def test_values_of_yaml_on_the_command_line(value, written):
    assert as_option(value) == written
