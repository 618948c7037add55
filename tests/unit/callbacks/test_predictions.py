"""The table of predictions: no padding, one precision."""

import pyarrow as pa
import pytest
import torch

from attn_lightning.callbacks.predictions import prediction_table
from attn_lightning.types import Batch


@pytest.fixture
def batch() -> Batch:
    mask = torch.arange(4) < torch.tensor([4, 1, 2])[:, None]
    return Batch(torch.ones(3, 4, dtype=torch.int64), mask, torch.tensor([1, -1, 0]), torch.tensor([7, 3, 5]))


def test_predictions_without_padding(batch):
    values = torch.arange(12.0).reshape(3, 4)
    probabilities = torch.tensor([[0.2, 0.8], [0.9, 0.1], [0.4, 0.6]])
    table = prediction_table(batch, {"probabilities": probabilities, "attention": values})
    assert table.column("row").to_pylist() == [7, 3, 5]
    assert table.column("label").to_pylist() == [1, None, 0]
    assert table.column("prediction").to_pylist() == [1, 0, 1]
    assert table.column("attention").to_pylist() == [[0, 1, 2, 3], [4], [8, 9]]
    assert table.column("probabilities").type == pa.list_(pa.float32())
    assert table.column("probabilities").to_pylist()[0] == pytest.approx([0.2, 0.8])


def test_rationales_are_written_and_null_where_an_example_has_none(batch):
    rationale = torch.tensor([[True, False, False, True], [False] * 4, [False] * 4])
    marked = batch._replace(rationale=rationale, has_rationale=torch.tensor([True, False, True]))
    outputs = {"probabilities": torch.full((3, 2), 0.5)}
    assert "rationale" not in prediction_table(batch, outputs).column_names
    column = prediction_table(marked, outputs).column("rationale")
    assert column.type == pa.list_(pa.bool_())
    assert column.to_pylist() == [[True, False, False, True], None, [False, False]]


def test_half_precision_is_written_as_float32(batch):
    outputs = {name: torch.ones(3, size).bfloat16() for name, size in (("probabilities", 2), ("attention", 4))}
    assert prediction_table(batch, outputs).column("attention").type == pa.list_(pa.float32())
