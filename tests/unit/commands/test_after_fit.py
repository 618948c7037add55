"""What follows a training, part by part."""

from types import SimpleNamespace

from jsonargparse import Namespace

from attn_lightning.callbacks.run_record import RunRecord
from attn_lightning.commands.after_fit import AfterFit

ASKED = {"test": {}, "control": {}, "suite": {"suite": "fast"}}


class Trainer:
    """A trainer that has trained, and can test."""

    is_global_zero = True
    checkpoint_callback = None

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
    assert "the last weights are tested" in capsys.readouterr().out
    assert record.record["status"] == "complete"
    assert not {"control", "evaluation"} & set(record.record)


def test_what_an_earlier_call_finished_is_not_done_again(tmp_path):
    finish, trainer, record = after(tmp_path, SimpleNamespace())
    record.finish("test")
    finish.run()
    assert trainer.tested == []
