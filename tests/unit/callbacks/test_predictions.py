"""The table of predictions: no padding, one precision."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn import functional as F

from attn_lightning.callbacks.predictions import PredictionWriter, prediction_table
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


@pytest.mark.parametrize("words", [[], [2, 3]])
@pytest.mark.parametrize("questions", [None, ["who?", "", "where?"]])
def test_texts_stand_beside_the_answers_and_second_texts_where_there_are_any(batch, tmp_path, questions, words):
    texts = {7: "a b c d", 3: "e", 5: "f g"}

    def of_rows(split, rows):
        assert split == "test"
        return [dict(zip(texts, questions, strict=True))[row] for row in rows]

    data = SimpleNamespace(
        text=lambda split, row: texts[row],
        offsets=lambda split, row: [(2 * k, 2 * k + 1) for k in range((len(texts[row]) + 1) // 2)],
        has_question=questions is not None,
        questions=of_rows,
        tokenizer=SimpleNamespace(candidates=np.array(words)),
    )
    if words:
        # The word of each class that can be the answer stands behind both texts, 0 in the place of the others.
        behind = torch.tensor([[2, 0], [0, 3], [2, 3]])
        batch = batch._replace(tokens=torch.cat([batch.tokens, behind], 1), mask=F.pad(batch.mask, (0, 2)))
    strategy = SimpleNamespace(barrier=lambda name: None)
    trainer = SimpleNamespace(datamodule=data, global_rank=0, world_size=1, is_global_zero=True, strategy=strategy)
    writer = PredictionWriter(tmp_path, trainer)
    writer.write(batch, {"probabilities": torch.full((3, 2), 0.5)})
    writer.close()
    table = pq.read_table(tmp_path / "predictions.parquet")
    assert table.column("text").to_pylist() == list(texts.values())
    assert table.column("start").to_pylist() == [[0, 2, 4, 6], [0], [0, 2]]
    assert ("question" in table.column_names) == (questions is not None)
    assert questions is None or table.column("question").to_pylist() == questions
    assert ("candidates" in table.column_names) == bool(questions and words)
    if questions and words:
        assert table.column("candidates").to_pylist() == [[True, False], [False, True], [True, True]]


def test_parts_of_a_killed_run_are_not_joined(batch, tmp_path):
    """They end in the middle, whichever process they are of; one of this run may have had no batch."""
    for rank in (0, 1, 3):
        (tmp_path / f".predictions.{rank}.parquet").write_bytes(b"PAR1 and no footer")
    trainers = [
        SimpleNamespace(
            datamodule=None, global_rank=rank, world_size=2, is_global_zero=rank == 0,
            strategy=SimpleNamespace(barrier=lambda name: None),
        )
        for rank in range(2)
    ]  # fmt: skip
    first, second = (PredictionWriter(tmp_path, trainer) for trainer in trainers)
    first.write(batch, {"probabilities": torch.full((3, 2), 0.5)})
    second.close()
    first.close()
    assert pq.read_table(tmp_path / "predictions.parquet").column("row").to_pylist() == [7, 3, 5]
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.parquet"]
