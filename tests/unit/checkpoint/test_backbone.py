"""A module that was built in Python must leave checkpoints that load without its script."""

from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import Average
from attn_lightning.checkpoint import describe_backbone
from attn_lightning.errors import ConfigurationError
from attn_lightning.module import AttentionModule
from attn_lightning.types import DataSpec

SPEC = DataSpec(2, 11, 4, ("a", "b"))


def saved(path, **arguments):
    module = AttentionModule(**arguments)
    module.build(SPEC)
    trainer = Trainer(max_epochs=0, logger=False, accelerator="cpu", enable_model_summary=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)
    return module


@pytest.mark.parametrize("arguments", [{}, {"backbone": partial(AttentionClassifier, encoder_dropout=0.25)}])
def test_weights_only_and_the_same_model(tmp_path, arguments):
    module = saved(tmp_path / "a.ckpt", learning_rate=0.5, **arguments)
    torch.load(tmp_path / "a.ckpt", weights_only=True)
    again = AttentionModule.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert repr(again.backbone) == repr(module.backbone)
    assert again.learning_rate == 0.5
    for name, value in module.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_a_backbone_without_a_name_must_be_passed_again(tmp_path):
    def backbone(spec):
        return AttentionClassifier(spec, encoder=partial(Average, hidden_size=3))

    module = saved(tmp_path / "a.ckpt", backbone=backbone)
    torch.load(tmp_path / "a.ckpt", weights_only=True)
    with pytest.raises(ConfigurationError, match=r"Expected `backbone`.*backbone=\.\.\."):
        AttentionModule.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    again = AttentionModule.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True, backbone=backbone)
    assert repr(again.backbone) == repr(module.backbone)


def test_only_plain_descriptions():
    assert describe_backbone(lambda spec: spec) is None
    assert describe_backbone(partial(AttentionClassifier, encoder=Average)) is None
    assert describe_backbone(AttentionClassifier) == {
        "class_path": "attn_lightning.backbone.classifier.AttentionClassifier",
        "init_args": {},
    }
