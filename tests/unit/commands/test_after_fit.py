"""What follows a training, part by part."""

from types import SimpleNamespace

import pytest
from jsonargparse import Namespace

from attn_lightning.callbacks.run_record import RunRecord
from attn_lightning.commands.after_fit import AfterFit

ASKED = {"test": {}, "control": {}, "suite": {"suite": "fast"}}


class Trainer:
    """A trainer that has trained, and can test."""

    is_global_zero = True
    checkpoint_callback = None
    check_val_every_n_epoch = 1
    current_epoch = 0

    def __init__(self):
        self.tested = []

    def test(self, module, datamodule, ckpt_path, verbose):
        self.tested.append(ckpt_path)


def after(folder, data, asked=None):
    record = RunRecord(folder, "mine", ASKED if asked is None else asked)
    record.record |= {"name": "mine", "seed": 0, "status": "running"}
    options = Namespace(verbose=False, report=False, monitor="val/accuracy", suite="fast", suite_explainers="attention")
    trainer = Trainer()
    return AfterFit(trainer, SimpleNamespace(), data, record, options), trainer, record


def test_data_without_a_test_split_is_said_once_and_completes_the_run(tmp_path, capsys):
    finish, trainer, record = after(tmp_path, SimpleNamespace(manifest={"splits": {"train": {}}}))
    finish.run()
    assert trainer.tested == []
    assert record.record["status"] == "complete"
    assert set(record.record["finished"]) == set(ASKED)
    assert capsys.readouterr().out.count("no test split") == 1


def test_data_of_a_users_own_is_tested_and_has_neither_control_nor_suite(tmp_path, capsys):
    finish, trainer, record = after(tmp_path, SimpleNamespace())
    finish.run()
    assert trainer.tested == [None]
    assert "SimpleNamespace has no `examples(split)`, so that the suite is left out" in capsys.readouterr().out
    assert record.record["status"] == "complete"
    assert not {"control", "evaluation"} & set(record.record)


def saved(path=""):
    return SimpleNamespace(best_model_path=path)


@pytest.mark.parametrize(
    ("callback", "every", "ended", "why"),
    [
        (None, 1, 3, "no epoch is kept without checkpoints (`trainer.enable_checkpointing`)"),
        (saved(), 10, 1, "no epoch was validated, as validation comes every 10 epochs and training ended after 1"),
        (saved(), 1, 3, "no epoch was validated and kept as the best"),
        (saved(), None, 1, "no epoch was validated and kept as the best"),
    ],
)
def test_why_the_last_weights_are_tested_is_said_once(tmp_path, capsys, callback, every, ended, why):
    finish, trainer, _ = after(tmp_path, SimpleNamespace())
    trainer.checkpoint_callback, trainer.check_val_every_n_epoch, trainer.current_epoch = callback, every, ended
    finish.run()
    assert trainer.tested == [None]
    said = capsys.readouterr().out
    assert said.count("last weights") == 1
    assert f"{why}, so that the last weights are what is tested\n" in said


def test_the_best_epoch_is_tested_without_a_word(tmp_path, capsys):
    finish, trainer, _ = after(tmp_path, SimpleNamespace(), asked={"test": {}})
    trainer.checkpoint_callback = saved("best.ckpt")
    finish.run()
    assert trainer.tested == ["best.ckpt"]
    assert "last weights" not in capsys.readouterr().out


def test_what_an_earlier_call_finished_is_not_done_again(tmp_path):
    finish, trainer, record = after(tmp_path, SimpleNamespace())
    record.finish("test")
    finish.run()
    assert trainer.tested == []
