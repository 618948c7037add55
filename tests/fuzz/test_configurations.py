"""Experiment and study files with strange values, keys and bytes: they run, or are refused in one line."""

import copy
import shutil
import traceback
from pathlib import Path

import pytest
import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from attn_lightning.commands.rehearsal import Rehearsal
from attn_lightning.commands.validation import Validator
from attn_lightning.errors import ConfigurationError
from attn_lightning.study.configuration import read_study
from attn_lightning.study.expansion import expand
from support.damage import damaged
from support.strange import spoil

PIECES = (
    *(piece.encode() for piece in ("\n", ": ", "- ", "\t", "\x00", "<<: ", "${data}", "${oc.env:HOME}")),
    *rb"{ [ ' *a &a !!python/object:os.system 1e999 .nan %".split(),
    b"\xff",
    b"9" * 5000,
)

METHODS = {
    "AttentionIVAT": {"weight": 1.0, "epsilon": 0.5, "xi": 0.1, "num_power_iterations": 1, "normalize": "sentence"},
    "WordAT": {"epsilon": 1.0},
    "Relation": {"output": "logit", "temperature": 1.0},
    "RandomAttentionPretraining": {"num_pretraining_epochs": 1, "masks": "subsets"},
    "Combined": {
        "methods": [{"class_path": "Diversity"}, {"class_path": "EntropyPenalty", "init_args": {"weight": 0.1}}]
    },
}
"""With options of each kind."""


def experiment(source, folder):
    name = source.choice(list(METHODS))
    return {
        "seed_everything": 0,
        "data": {
            "class_path": "Planted",
            "init_args": {
                "train_documents": 16,
                "validation_documents": 8,
                "test_documents": 8,
                "max_length": 14,
                "batch_size": 8,
                "embeddings": {"class_path": "RandomEmbeddings", "init_args": {"dimension": 4}},
                "cache": str(folder / "cache"),
            },
        },
        "method": {"class_path": name, "init_args": copy.deepcopy(METHODS[name])},
        "model": {
            "learning_rate": 0.001,
            "weight_decay": 0.0,
            "class_weights": "none",
            "backbone": {
                "class_path": "AttentionClassifier",
                "init_args": {"encoder": {"class_path": "BiLSTM", "init_args": {"hidden_size": 4}}},
            },
        },
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "gradient_clip_val": 1.0, "precision": "32-true"},
        "run": {"root": str(folder / "runs"), "report": False, "control": False},
    }


HUGE = (
    "weight",
    "epsilon",
    "xi",
    "temperature",
    "learning_rate",
    "weight_decay",
    "gradient_clip_val",
    "seed_everything",
)
"""Where a huge number costs neither time nor memory."""


def sane(key, value):
    """Ten to the twentieth epochs are no fault of a configuration, only long."""
    return not (type(value) in (int, float) and value > 100 and key not in HUGE)


def as_yaml(tree, source, folder):
    """A file of the tree; sometimes its bytes are damaged too."""
    data = yaml.safe_dump(tree, allow_unicode=True).encode()
    if source.random() < 0.3:
        data = damaged(data, source, PIECES)
    path = folder / "tried.yaml"
    path.write_bytes(data)
    return path


def refused(err):
    """The message of a command, which is one sentence of ours and no trace of Python."""
    assert "Traceback" not in err
    message = next((line for line in err.splitlines() if line.startswith("error: ")), None)
    assert message is not None, err[-500:]
    raise ConfigurationError(f"Expected a configuration that runs, but: {message}")


@pytest.fixture
def short(monkeypatch, tmp_path):
    """Nothing may be left in, or read from, the folder that a command is started in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


ENDS = (
    "--trainer.max_steps=3",
    "--trainer.enable_progress_bar=false",
    "--data.train_documents=16",
    "--data.max_length=14",
)


def test_experiments(fuzz, short):
    """Files up to the first step of a training, all in one process and with one parser."""
    validator = Validator()

    def experiments(source):
        tree = experiment(source, short)
        if source.random() < 0.9:
            spoil(tree, source, sane)
        path = as_yaml(tree, source, short)
        try:
            config = validator.options(["fit", f"--config={path}", f"--run.root={short / 'runs'}", *ENDS])
        except ConfigurationError as error:
            raise ConfigurationError(f"Expected a configuration that is read, but: {error}") from error
        try:
            Rehearsal(validator.parser).play(config)
        except ConfigurationError as error:
            if lightning_says(error.__cause__):
                raise ConfigurationError(f"Expected options that work together, but: {error}") from error
            raise
        finally:
            shutil.rmtree(short / "cache", ignore_errors=True)

    fuzz(experiments, 60)


def lightning_says(error):
    """Whether it is what the Trainer says of its options, to which `fit` puts a sentence of its own."""
    if isinstance(error, MisconfigurationException):
        return True
    frames = traceback.extract_tb(error.__traceback__) if type(error) is ValueError else []
    return any("lightning" in frame.filename and frame.name == "__init__" for frame in frames[-3:])


def test_trainings(fuzz, cli, short):
    """Whole trainings of a few steps, from the file to the end."""

    def trainings(source):
        tree = experiment(source, short)
        if source.random() < 0.9:
            spoil(tree, source, sane)
        path = as_yaml(tree, source, short)
        outcome = cli("fit", "--config", path, *ENDS, f"--run.root={short / 'runs'}")
        if outcome.code:
            refused(outcome.err)

    fuzz(trainings, 4)


def study(source):
    return {
        "methods": source.choice((["vanilla", "ivat"], {"vanilla": {}, "at": {"method.epsilon": [0.5, 1.0]}})),
        "data": ["planted"],
        "seeds": source.choice((2, [0, 3])),
        "options": {"trainer.max_epochs": 1, "model.learning_rate": [0.001, 0.01]},
        "metrics": ["test/accuracy", "cost/seconds"],
        "require": {"test/accuracy": 0.5},
        "baseline": "vanilla",
        "experiments": str(Path(__file__).resolve().parents[2] / "experiments"),
    }


def test_studies(fuzz, short):
    """Study files up to the commands that they would run, two of which are parsed."""
    validator = Validator()

    def studies(source):
        tree = study(source)
        if source.random() < 0.9:
            spoil(tree, source, lambda key, value: key != "experiments" and sane(key, value))
        read = read_study(as_yaml(tree, source, short))
        cells = expand(read)
        for cell in source.sample(cells, min(len(cells), 2)):
            try:
                validator.parse(cell.arguments(Path("runs")))
            except ConfigurationError as error:
                raise ConfigurationError(f"Expected commands that `fit` accepts, but: {error}") from error

    fuzz(studies, 30)
