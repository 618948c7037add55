"""Lines of progress: one per epoch, more within a long epoch where no bar is shown, none that is stale."""

from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar

from attn_lightning.callbacks import progress
from attn_lightning.callbacks.progress import EpochLines
from attn_lightning.module import AttentionModule
from support.training import fit, planted


def lines(capsys, *callbacks, **options):
    fit(AttentionModule(), planted(), EpochLines(), *callbacks, **options)
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]


def test_a_line_per_epoch_with_what_was_measured_in_it(capsys):
    first, second = lines(capsys, max_epochs=2, check_val_every_n_epoch=2, limit_val_batches=1)
    assert first.startswith("epoch 1/2  train/loss ")
    assert "val/" not in first
    assert second.startswith("epoch 2/2  train/loss ")
    assert "val/accuracy" in second


def test_a_validation_every_so_many_steps_is_shown_with_its_epoch(capsys):
    found = lines(capsys, max_epochs=4, check_val_every_n_epoch=None, val_check_interval=6, limit_val_batches=1)
    assert ["val/" in line for line in found] == [False, True, False, True]


def test_what_is_monitored_is_shown_whatever_it_is(capsys, tmp_path):
    (line,) = lines(capsys, ModelCheckpoint(tmp_path, monitor="val/macro_f1"), enable_checkpointing=True)
    assert "val/macro_f1 0." in line or "val/macro_f1 1." in line
    assert "val/accuracy" in line


def test_a_long_epoch_says_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    found = lines(capsys, max_epochs=2, limit_val_batches=0)
    for epoch in (found[:3], found[4:7]):
        assert [line.split("  ")[1].split(",")[0] for line in epoch] == ["step 1 of 3", "step 2 of 3", "step 3 of 3"]
        assert all("left in this epoch" in line for line in epoch)


def test_a_bar_shows_the_steps_where_there_is_one(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    fit(AttentionModule(), planted(), EpochLines(), TQDMProgressBar(), enable_progress_bar=True)
    assert "left in this epoch" not in capsys.readouterr().out
