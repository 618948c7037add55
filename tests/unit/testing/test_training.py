"""The short training trains, and a loss that is no number is found."""

import pytest
import torch

from attn_lightning.errors import NumericalError
from attn_lightning.methods import AttentionAT, Method
from attn_lightning.testing.training import check_training, train
from attn_lightning.types import LossTerm


def test_a_training_moves_the_model_and_measures_it(tmp_path):
    before, _ = train(None, tmp_path, num_epochs=0)
    module, trainer = train(AttentionAT(), tmp_path)
    assert trainer.current_epoch == 2
    assert {"train/attention_at", "val/accuracy"} <= set(trainer.callback_metrics)
    pairs = zip(before.parameters(), module.parameters(), strict=True)
    assert any(not torch.equal(old, new) for old, new in pairs)


def test_options_of_the_method_are_passed_on():
    seen = []

    def make(**options):
        seen.append(options)
        return AttentionAT(**options)

    check_training(make, {"epsilon": 0.25})
    assert seen == [{"epsilon": 0.25}] * 2


def test_a_term_that_is_no_number_ends_it():
    class Bad(Method):
        def loss(self, step):
            return LossTerm("bad", step.output.logits.sum() / 0, self.weight)

    with pytest.raises(NumericalError, match="bad"):
        check_training(Bad)
