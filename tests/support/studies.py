"""Studies: tiny ones to run, and what run folders say without running anything."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from attn_lightning.study.configuration import Study, Variant
from attn_lightning.study.expansion import Cell
from attn_lightning.study.state import CellState


def variant(name):
    return Variant(name, name, name, ())


def study(methods=("vanilla", "iat"), seeds=3, metrics=("test/accuracy",), baseline="vanilla", require=()):
    return Study(
        name="tried",
        experiments=Path(),
        methods=tuple(map(variant, methods)),
        data=(variant("planted"),),
        options=(variant(""),),
        seeds=tuple(range(seeds)),
        metrics=metrics,
        baseline=baseline,
        require=dict(require),
    )


def cell(method, seed):
    return Cell(method, "planted", "", seed, Path("x.yaml"), (), f"{method}_planted", False)


def complete(accuracy, **more):
    return CellState("complete", {"test": {"test/accuracy": accuracy}, **more})


def results(vanilla, iat):
    found = [(cell("vanilla", seed), state) for seed, state in enumerate(vanilla)]
    return found + [(cell("iat", seed), state) for seed, state in enumerate(iat)]


REPOSITORY = Path(__file__).resolve().parents[2]


def tiny_study(path: Path, methods: Sequence[Any], metrics: Sequence[str], **options: Any) -> Path:
    """Write a study of two seeds on planted data whose runs take about a second each.

    Args:
        path: of the file.
        methods: as in a study file.
        metrics: as in a study file.
        **options: of every run, over the tiny ones; `__` stands for a dot.
    """
    sizes = {"train_documents": 96, "validation_documents": 32, "test_documents": 40, "max_length": 20, "batch_size": 8}
    shared = {
        **{f"data.{name}": value for name, value in sizes.items()},
        "data.embeddings": "RandomEmbeddings",
        "data.embeddings.dimension": 8,
        "model.backbone.encoder.hidden_size": 4,
        "trainer.accelerator": "cpu",
        **{name.replace("__", "."): value for name, value in options.items()},
    }
    study = {"methods": list(methods), "data": ["planted"], "seeds": 2, "metrics": list(metrics)}
    contents = {**study, "experiments": str(REPOSITORY / "experiments"), "options": shared}
    path.write_text(yaml.safe_dump(contents, sort_keys=False))
    return path
