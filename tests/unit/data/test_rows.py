"""Mapped rows against the same file as `datasets` reads it."""

import pickle

import numpy as np
import pyarrow as pa
import pytest
import torch

from attn_lightning.data.batching import EncodedTexts
from attn_lightning.data.datamodule import TextDataModule
from attn_lightning.data.planted import Planted
from attn_lightning.data.rows import MappedRows, open_rows, to_numpy


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> TextDataModule:
    module = Planted(
        train_documents=60, validation_documents=20, test_documents=20, cache=tmp_path_factory.mktemp("rows")
    )
    module.prepare_data()
    module.setup("test")
    return module


def test_mapped_rows_are_those_that_datasets_reads(planted: TextDataModule) -> None:
    for split in ("train", "validation", "test"):
        rows, dataset = planted.rows(split), planted.dataset(split)
        assert rows.column_names == dataset.column_names
        assert len(rows) == len(dataset)
        assert rows.data.to_pydict() == dataset.to_dict()
        one, other = EncodedTexts(rows)[[3, 0, 2]], EncodedTexts(dataset)[[3, 0, 2]]
        for value, same in zip(one, other, strict=True):
            assert (value is None and same is None) or torch.equal(value, same)


def test_a_worker_gets_the_path_and_maps_the_file_itself(planted: TextDataModule) -> None:
    rows = planted.rows("train")
    assert len(rows.data) == len(rows)  # mapped before it is pickled
    packed = pickle.dumps(EncodedTexts(rows))
    assert len(packed) < 1000
    again: EncodedTexts = pickle.loads(packed)
    assert np.array_equal(again[[0, 1]].tokens, EncodedTexts(rows)[[0, 1]].tokens)


def test_the_dataset_of_mapped_rows_is_that_of_the_file(planted: TextDataModule) -> None:
    rows = planted.rows("test")
    assert isinstance(rows, MappedRows)
    assert rows.dataset()[:] == open_rows(rows.path)[:]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([3, -1, 2], pa.int64()),
        pa.array(range(-5, 95), pa.int8()).slice(7, 60),
        pa.array([True, False, True] * 7).slice(3, 11),
        pa.array([1.5, 2.5], pa.float32()),
        pa.array([1, None, 3], pa.int64()),
        pa.array([], pa.int32()),
        pa.array([[1, 2], [], [3]], pa.list_(pa.int32())).slice(1).values,
        pa.chunked_array([pa.array([1, 2], pa.int32()), pa.array([3], pa.int32())]),
        pa.chunked_array([pa.array([True]), pa.array([False, True])]).slice(1),
    ],
)
def test_arrays_are_those_of_pyarrow(values: pa.Array) -> None:
    found = to_numpy(values)
    listed = [np.nan if value is None else value for value in values.to_pylist()]
    expected = np.array(listed, np.float64 if values.null_count else values.type.to_pandas_dtype())
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected, equal_nan=values.null_count > 0)
