"""What a run adds to the trainer."""

import csv

import torch

from attn_lightning.commands.trainer import csv_logger


def test_the_log_of_a_resumed_run_keeps_its_rows(tmp_path):
    folder = tmp_path / "name" / "version_0"
    folder.mkdir(parents=True)
    first = csv_logger(folder, None)
    first.log_metrics({"epoch": 0, "val/accuracy": 0.5}, step=1)
    first.log_metrics({"epoch": 1, "val/accuracy": 0.6}, step=2)
    first.save()
    torch.save({"epoch": 0}, folder / "last.ckpt")
    second = csv_logger(folder, folder / "last.ckpt")
    second.log_metrics({"epoch": 1, "val/accuracy": 0.75, "val/f1": 0.1}, step=2)
    second.save()
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["val/accuracy"] for row in rows] == ["0.5", "0.75"]
    assert [row["val/f1"] for row in rows] == ["", "0.1"]
