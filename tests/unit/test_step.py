"""The step that methods see, as a training hands it over."""

import torch

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.methods import Method
from attn_lightning.module import AttentionModule
from support.training import fit, planted


class Sees(Method):
    """Keeps what it saw of every step."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def loss(self, step):
        logits, labels = step.output.logits, step.batch.labels
        self.steps.append((step.progress, step.output, step.task_loss(logits, labels), logits, labels))
        assert step.model.training
        assert step.unlabeled is None
        assert step.unlabeled_output is None


def test_a_training_shows_its_methods_each_step_with_graph_loss_and_progress():
    sees = Sees()
    trainer = fit(AttentionModule(AttentionClassifier), planted(), sees, max_epochs=2)
    progress = [step[0] for step in sees.steps]
    assert len(progress) == trainer.global_step
    assert progress == sorted(progress)
    assert progress[0] == 0
    assert 0.5 < progress[-1] < 1
    for _, output, losses, logits, labels in sees.steps:
        assert output.attention.requires_grad
        # Per example, so that weights and masks of a method can be put between it and its mean.
        expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        torch.testing.assert_close(losses, expected)
