"""The table of predictions of a test split, written batch by batch by every process."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lightning.pytorch import Trainer

from attn_lightning.data.text import PADDING_ID
from attn_lightning.types import Batch


class PredictionWriter:
    """Streams test predictions into one Parquet file, a row group per batch, so memory is bounded by the batch.

    Every process writes its own part; the first one joins them when all are closed.

    Args:
        folder: the run folder.
        trainer: for the data module (texts and offsets) and the processes.
    """

    def __init__(self, folder: Path, trainer: Trainer) -> None:
        self._folder = folder
        self._trainer = trainer
        self._data = getattr(trainer, "datamodule", None)
        self._part = self._part_of(trainer.global_rank)
        # Of a process that was killed: without a batch this one would leave it, and nobody can read it.
        self._part.unlink(missing_ok=True)
        self._writer: pq.ParquetWriter | None = None

    def _part_of(self, rank: int) -> Path:
        return self._folder / f".predictions.{rank}.parquet"

    def write(self, batch: Batch, outputs: dict[str, torch.Tensor]) -> None:
        """Append the examples of a batch."""
        table = prediction_table(batch, outputs)
        if hasattr(self._data, "offsets"):
            table = self._with_text(table, batch)
        if self._writer is None:
            # Opened with the first batch, which alone says what columns there are.
            self._writer = pq.ParquetWriter(self._part, table.schema, compression="zstd")
        self._writer.write_table(table)

    def _with_text(self, table: pa.Table, batch: Batch) -> pa.Table:
        assert self._data is not None
        rows = table.column("row").to_pylist()
        texts = [self._data.text("test", row) for row in rows]
        offsets = [self._data.offsets("test", row) for row in rows]
        table = table.append_column("text", pa.array(texts, pa.string()))
        if self._data.has_question:
            table = table.append_column("question", pa.array(self._data.questions("test", rows), pa.string()))
            if count := len(self._data.tokenizer.candidates):
                # Behind both texts. A reader could not tell them from other classes of a probability near 0.
                possible = (batch.tokens[:, -count:] != PADDING_ID).cpu().numpy()
                table = table.append_column("candidates", pa.array(list(possible), pa.list_(pa.bool_())))
        for index, name in enumerate(("start", "end")):
            values = [[pair[index] for pair in pairs] for pairs in offsets]
            table = table.append_column(name, pa.array(values, pa.list_(pa.int32())))
        return table

    def close(self) -> None:
        """Finish the part and, on the first process, join all parts into `predictions.parquet`."""
        if self._writer is not None:
            self._writer.close()
        # The first process must not join parts that others are still writing.
        self._trainer.strategy.barrier("predictions")
        if self._trainer.is_global_zero:
            # A run of more processes that was killed has left parts of its others, without the footer that a reader
            # needs.
            parts = [part for rank in range(self._trainer.world_size) if (part := self._part_of(rank)).exists()]
            _join(parts, self._folder / "predictions.parquet")
            for part in self._folder.glob(".predictions.*.parquet"):
                part.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Remove the unfinished part."""
        if self._writer is not None:
            self._writer.close()
        self._part.unlink(missing_ok=True)


def _join(parts: list[Path], target: Path) -> None:
    if len(parts) == 1:
        # One process has nothing to join: a rename, whatever the size.
        parts[0].replace(target)
        return
    with pq.ParquetWriter(target, pq.read_schema(parts[0]), compression="zstd") as writer:
        for part in parts:
            for group in pq.ParquetFile(part).iter_batches():
                writer.write_batch(group)


def prediction_table(batch: Batch, outputs: dict[str, torch.Tensor]) -> pa.Table:
    """A batch and what the model said of it as Arrow, padding removed.

    Args:
        batch: B examples.
        outputs: "probabilities" (B, C), and (B, T) values per token under any other name.

    Returns:
        A row per example with `row`, `label` (null if unlabelled), `prediction`, `probabilities`, a list per token
        value, and `rationale` (null for an example without one) where the data has any.
    """
    lengths = batch.mask.sum(-1).cpu()
    # Arrow's layout of lists: the values in one array, and where each row begins.
    offsets = pa.array(torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).to(torch.int32).numpy())
    mask = batch.mask.cpu()
    probabilities = outputs["probabilities"].float().cpu()
    labels = batch.labels.cpu()
    columns: dict[str, pa.Array] = {
        "row": pa.array(batch.rows.cpu().numpy()),
        # Null and not -1: a reader who counts labels would find a class too many.
        "label": pa.array(labels.numpy(), mask=(labels < 0).numpy()),
        "prediction": pa.array(probabilities.argmax(-1).numpy()),
        "probabilities": pa.array(list(probabilities.numpy()), pa.list_(pa.float32())),
    }
    for name, values in outputs.items():
        if name != "probabilities":
            flat = values.detach().float().cpu()[mask].numpy()
            columns[name] = pa.ListArray.from_arrays(offsets, pa.array(flat))
    if batch.rationale is not None and batch.has_rationale is not None:
        marked = pa.array(batch.rationale.cpu()[mask].numpy())
        unknown = pa.array((~batch.has_rationale.cpu()).numpy())
        columns["rationale"] = pa.ListArray.from_arrays(offsets, marked, mask=unknown)
    return pa.table(columns)
