"""Invented texts, in files as a user has them, and a data module made ready."""

import csv
import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attn_lightning.data.embeddings import RandomEmbeddings

GOOD, BAD = ["bright", "warm", "lovely"], ["dull", "cold", "grim"]


@pytest.fixture(scope="session")
def rows():
    """Makes `count` labelled texts in which the words tell the label."""

    def make(count, seed=0):
        generator = np.random.default_rng(seed)
        made = []
        for number in range(count):
            words = generator.choice(GOOD if number % 2 else BAD, generator.integers(2, 9)).tolist()
            made.append({"text": f"It's a {' '.join(words)} day {number}.", "label": number % 2})
        return made

    return make


@pytest.fixture(scope="session")
def write():
    """Writes rows to a file of the format that its name says; returns the path."""

    def put(path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(content), path)
        elif ".csv" in path.name:
            with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(content[0]))
                writer.writeheader()
                writer.writerows(content)
        else:
            lines = "\n".join(json.dumps(row) for row in content).encode()
            path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
        return path

    return put


@pytest.fixture
def files(tmp_path, rows, write):
    """Options of `TextFiles` with a training and a test file."""
    return {
        "train": write(tmp_path / "train.jsonl", rows(80)),
        "test": write(tmp_path / "test.jsonl", rows(21, seed=1)),
        "cache": tmp_path / "cache",
        "embeddings": RandomEmbeddings(8),
    }


@pytest.fixture(scope="session")
def prepared():
    """Prepares a data module as the Trainer does; returns it."""

    def make(module):
        module.prepare_data()
        module.setup()
        return module

    return make
