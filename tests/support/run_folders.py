"""Run folders as `fit` leaves them, made without training."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

TEXTS = ("a dull film", "what a fine film", "fine")


def spans(text: str) -> list[tuple[int, int]]:
    """Start and end of every word."""
    found, at = [], 0
    for word in text.split():
        at = text.index(word, at)
        found.append((at, at + len(word)))
        at += len(word)
    return found


def predictions(texts: Sequence[str], seed: int = 0, rationale: bool = True) -> pa.Table:
    """A table of predictions; the last example has no rationale, and its row comes first."""
    generator = np.random.default_rng(seed)
    rows = []
    for row, text in enumerate(texts):
        places = spans(text)
        weights = generator.dirichlet(np.ones(len(places)))
        probability = float(generator.uniform())
        rows.append(
            {
                "row": row,
                "label": row % 2,
                "prediction": int(probability > 0.5),
                "probabilities": [1 - probability, probability],
                "attention": weights.tolist(),
                "gradient": generator.uniform(size=len(places)).tolist(),
                "hidden": generator.uniform(size=len(places)).tolist(),
                "text": text,
                "start": [start for start, _ in places],
                "end": [end for _, end in places],
                "rationale": None if row == len(texts) - 1 else [place == 0 for place in range(len(places))],
            }
        )
    table = pa.Table.from_pylist(rows[-1:] + rows[:-1])
    return table if rationale else table.drop_columns(["rationale"])


def record(name: str, seed: int, data: str, accuracy: float) -> dict[str, Any]:
    """What `metrics.json` holds."""
    return {
        "format": 1,
        "name": name,
        "seed": seed,
        "methods": [{"class": "AttentionIVAT", "epsilon": 1.0}],
        "num_parameters": 1234,
        "data": {
            "name": data,
            "label_names": ["bad", "good"],
            "splits": {"train": {"rows": 10}, "test": {"rows": 3, "sha256": f"digest of {data}"}},
        },
        "environment": {"commit": "abc"},
        "status": "complete",
        "history": [{"epoch": k, "train/loss": 1 / (k + 1), "val/accuracy": 0.5 + k / 10} for k in range(3)],
        "cost": {"fit_seconds": 2.0 + seed},
        "test": {
            "test/accuracy": accuracy,
            "test/f1": accuracy - 0.1,
            "test/evidence_mass_mean": 0.5,
            "test/evidence_mass_std": 0.1,
            "test/evidence_mass_n_valid": 26.0,
        },
        "control": {"tfidf_logistic_regression": {"accuracy": 0.6}},
        "evaluation": {
            "evaluation/faithfulness/attention/aopc_comprehensiveness": 0.4,
            "evaluation/faithfulness/random/aopc_comprehensiveness": 0.1,
        },
    }


def suite(data: str) -> dict[str, Any]:
    """What `summary.json` of an evaluation holds."""
    row = {"metric": "aopc_comprehensiveness", "explainer": "attention", "setting": {}}
    return {
        "split": "test",
        "sha256": f"digest of {data}",
        "examples": 3,
        "seed": 0,
        "families": {
            "faithfulness": {
                "rows": [{**row, "value": 0.4, "std": 0.2, "n_valid": 17}],
                "untrained": [{**row, "value": 0.05, "std": 0.2, "n_valid": 17}],
            }
        },
    }


def make_run(
    root: Path,
    name: str = "ivat_mine",
    version: str = "v",
    *,
    seed: int = 0,
    data: str = "mine",
    accuracy: float = 0.8,
    texts: Sequence[str] | None = TEXTS,
    **changes: Any,
) -> Path:
    """Make `<root>/<name>/<version>`; without `texts` there are no predictions, `changes` are parts of the record."""
    folder = root / name / version
    folder.mkdir(parents=True)
    contents = {**record(name, seed, data, accuracy), **changes}
    (folder / "metrics.json").write_text(json.dumps(contents), encoding="utf-8")
    config = {"model": {"backbone": {"class_path": "a.Net", "init_args": {"encoder": {"class_path": "a.BiLSTM"}}}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (folder / "evaluation" / "best-mine-test").mkdir(parents=True)
    (folder / "evaluation" / "best-mine-test" / "summary.json").write_text(json.dumps(suite(data)), "utf-8")
    if texts is not None:
        pq.write_table(predictions(texts, seed), folder / "predictions.parquet")
    return folder
