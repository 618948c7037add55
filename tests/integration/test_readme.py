"""The README does not rot: its recipes run, its commands parse, and what its tables name is there."""

import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from attn_lightning import backbone, methods
from attn_lightning.backbone import bottleneck, encoders, normalizers
from attn_lightning.cli import COMMANDS
from attn_lightning.study.named import study_names
from support.listed import published_methods

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
LINK = r"https?://[^\s)>,;]+[^\s)>,;:.]"

TINY = (
    "--data.batch_size=8",
    "--data.embeddings=RandomEmbeddings",
    "--data.embeddings.dimension=8",
    "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu",
    "--run.suite=none",
    "--run.control=false",
    "--run.report=false",
)
TINY_PLANTED = ("--data.train_documents=48", "--data.validation_documents=16", "--data.test_documents=16")
TINY_ENCODER = "--model.backbone.encoder.hidden_size=4"


def commands(start):
    """Command lines of the README that begin with these words."""
    shell = "\n".join(text for language, text in BLOCKS if language == "sh").replace("\\\n", "")
    lines = [line.removeprefix("srun ") for line in shell.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(start)]


def section(title):
    """What stands below a heading, up to the next of its level."""
    level = title.split()[0]
    return re.search(rf"^{re.escape(title)}\n(.*?)(?=^#{{2,{len(level)}}} |\Z)", README, re.MULTILINE | re.DOTALL)[1]


def first_column(table):
    return [row.split("|")[1].strip() for row in table.splitlines() if row.startswith("|")][2:]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the experiments of the repository and the files of all recipes, as a reader would have it."""
    (tmp_path / "experiments").mkdir()
    for path in (REPOSITORY / "experiments").iterdir():
        (tmp_path / "experiments" / path.name).symlink_to(path)
    for kind in ("data", "studies"):
        (tmp_path / "experiments" / kind).unlink()
        (tmp_path / "experiments" / kind).mkdir()
        for path in (REPOSITORY / "experiments" / kind).iterdir():
            (tmp_path / "experiments" / kind / path.name).symlink_to(path)
    for _, text in BLOCKS:
        if named := re.match(r"# (\S+\.(?:py|yaml))\n", text):
            (tmp_path / named[1]).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    # A later test asks which modules this process knows.
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


def rows_of_own_data(folder, name, count):
    rows = [f"{'good' if k % 2 else 'bad'} film number {k},{1 + k % 2}" for k in range(count)]
    (folder / name).write_text("\n".join(["review,stars", *rows]) + "\n")


# --- recipes -------------------------------------------------------------------------------------------------------


def test_own_data_trains_and_its_study_expands(cli, folder):
    rows_of_own_data(folder, "train.csv", 40)
    rows_of_own_data(folder, "test.csv", 8)
    outcome = cli("fit", "--config", "ivat_mine", *TINY, TINY_ENCODER)
    assert outcome.code == 0, outcome.err
    ((_, study, options),) = [line[1:] for line in commands("make study")]
    assert "--publish" in options
    outcome = cli("study", study.removeprefix("STUDY="), "--dry-run")
    assert outcome.code == 0, outcome.err
    assert "15 commands" in outcome.out


def test_own_method_keeps_the_contract_and_trains(cli, folder):
    namespace = {"__name__": "readme"}
    exec((folder / "test_my_method.py").read_text(), namespace)
    namespace["test_it_keeps_the_contract"]()
    (command,) = [line[3:] for line in commands("python -m attn_lightning fit") if "my_method" in " ".join(line)]
    outcome = cli(*command, *TINY, *TINY_PLANTED, TINY_ENCODER)
    assert outcome.code == 0, outcome.err


def test_own_model_trains(cli, folder):
    (command,) = [line[3:] for line in commands("python -m attn_lightning fit") if "my_model" in " ".join(line)]
    outcome = cli(*command, *TINY, *TINY_PLANTED)
    assert outcome.code == 0, outcome.err


def test_the_library_recipe_runs(folder):
    text = (folder / "library.py").read_text()
    for name, smaller in (
        ("Planted()", "Planted(train_documents=48, validation_documents=16, test_documents=16)"),
        ("max_epochs=3", "max_epochs=1, accelerator='cpu', enable_progress_bar=False"),
    ):
        assert name in text
        text = text.replace(name, smaller)
    exec(text, {"__name__": "readme"})


# --- commands ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", commands("python -m attn_lightning"), ids=" ".join)
def test_commands_are_accepted(cli, folder, command):
    if command[3] == "fit":
        command = [*command, "--print_config"]
    outcome = cli(*command[3:])
    assert outcome.code == 0, outcome.err


def test_scripts_are_shell():
    for language, text in BLOCKS:
        if language == "sh":
            subprocess.run(["bash", "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize("command", commands("make"), ids=" ".join)
def test_make_knows_targets_and_names(cli, folder, command):
    _, target, *variables = command
    given = dict(variable.split("=", 1) for variable in variables)
    makefile = (REPOSITORY / "Makefile").read_text()
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert all(re.search(rf"^{name} \?=", makefile, re.MULTILINE) for name in given)
    if target == "run":
        name = given.get("EXP", "ivat_planted")
        outcome = cli("fit", "--config", name, *shlex.split(given.get("ARGS", "")), "--print_config")
        assert outcome.code == 0, outcome.err
    if "STUDY" in given:
        assert given["STUDY"] in study_names(folder / "experiments" / "studies")


def test_the_table_of_commands_is_complete():
    named = re.findall(r"`(\w+)", "\n".join(first_column(section("## Commands"))[0:]))
    assert set(COMMANDS) <= set(named)


def test_options_of_the_table_of_commands_exist(cli):
    for row in first_column(section("## Commands")):
        command, *options = re.findall(r"(?<!\w)(?:--)?\w+", row)
        shown = cli(command, "--help").out
        assert all(option in shown for option in options if option.startswith("--")), row


# --- tables, links, sizes ------------------------------------------------------------------------------------------


def test_the_table_of_methods_is_complete():
    named = set(re.findall(r"`(\w+)`", section("## Methods")))
    assert published_methods().keys() <= named
    classes = [vars(room) for room in (methods, backbone, bottleneck, encoders, normalizers)]
    assert not {name for name in named if not any(name in room for room in classes)}


def test_the_papers_of_every_method_are_cited():
    listed = re.sub(r"arXiv:([\d.]+\d)", r"https://arxiv.org/abs/\1", section("## How to cite"))
    cited = set(re.findall(LINK, listed))
    for name, method in published_methods().items():
        source = re.search(r"Source:\n(.*?)\n\n", inspect.getdoc(method) or "", re.DOTALL)
        links = set(re.findall(LINK, source[1])) if source else set()
        assert links <= cited, name


def test_numbers_of_papers_are_in_the_list():
    listed = {int(number) for number in re.findall(r"^(\d+)\. ", section("## How to cite"), re.MULTILINE)}
    column = " ".join(row.split("|")[3] for row in section("## Methods").splitlines() if row.startswith("|"))
    numbers = {int(number) for number in re.findall(r"\d+", column)}
    assert numbers <= listed == set(range(1, len(listed) + 1))


def test_promises_name_tests_that_exist():
    tests = re.findall(r"`(tests/[^`:]+)(?:::(\w+))?`", README)
    for path, name in tests:
        assert (REPOSITORY / path).exists(), path
        assert not name or f"def {name}(" in (REPOSITORY / path).read_text(), name


def test_links_within_the_repository_lead_somewhere():
    for page in ("README.md", "experiments/README.md", "tests/benchmarks/README.md"):
        text = (REPOSITORY / page).read_text("utf-8")
        headings = {re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in text.splitlines()}
        for target in re.findall(r"\]\((?!https?://)([^)]+)\)", text):
            path, _, anchor = target.partition("#")
            assert not path or (REPOSITORY / page).parent.joinpath(path).exists(), target
            assert path or anchor in headings, target


def test_the_readme_is_short():
    assert len(README.encode()) <= 12 * 1024
