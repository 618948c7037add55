"""Attention inside the encoder as an explanation: per text alone, and refused where the encoder has none."""

import numpy as np
import torch

from attn_lightning.backbone.transformer import last_layer_mean, rollout
from attn_lightning.evaluation.explainers.available import explainers
from attn_lightning.evaluation.subject import no_progress
from support.explained import subject


def test_both_summaries_are_those_of_every_text_alone() -> None:
    examined, known = subject("transformer"), explainers()
    for name, summary in {"transformer": last_layer_mean, "rollout": rollout}.items():
        explainer = known[name]()
        assert explainer.unavailable(examined) is None
        found = explainer.explain(examined, no_progress)
        for row, text in enumerate(examined.examples.texts):
            mask = torch.ones(1, len(text), dtype=torch.bool)
            with torch.no_grad():
                inside = examined.model.token_attention(examined.model.embed(text[None]), mask)
            assert inside is not None
            np.testing.assert_allclose(found[row], summary(inside, mask)[0].numpy(), atol=1e-5)
            assert abs(found[row].sum() - 1) < 1e-5


def test_an_lstm_has_no_attention_inside() -> None:
    assert explainers()["rollout"]().unavailable(subject()) == "the encoder has no attention of its own"
