"""The small models and texts are what the contract takes them for."""

import torch

from attn_lightning.backbone.bottleneck import BottleneckClassifier
from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.methods import AttentionAT, InformationBottleneck, WordIAT
from attn_lightning.testing.small import (
    SmallModel,
    noise_of_places,
    pass_from,
    rows_of,
    settings_of,
    small_batch,
    small_model,
    small_step,
)


def test_a_pass_from_word_vectors_is_the_pass_from_words():
    for kind in (SmallModel, AttentionClassifier):
        model, batch = small_model(kind), small_batch()
        output = model(batch.tokens, batch.mask)
        again = pass_from(model, output.embeddings, batch.mask)
        torch.testing.assert_close(again.logits, output.logits)
        assert torch.equal(output.attention > 0, batch.mask)


def test_a_required_class_is_made_and_weights_are_the_same_every_time():
    assert type(small_model(SmallModel, BottleneckClassifier)) is BottleneckClassifier
    first, second = (small_model(SmallModel).state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_rows_keep_what_belongs_to_them():
    batch = small_batch()
    part = rows_of(batch, torch.tensor([3, 1]))
    assert part.rows.tolist() == [3, 1]
    assert torch.equal(part.rationale, batch.rationale[[3, 1]])
    assert part.shortcut is None
    assert small_step(small_model(SmallModel), part).output.logits.shape == (2, 3)


def test_noise_depends_on_the_place_alone():
    one, more = noise_of_places(torch.zeros(1, 4)), noise_of_places(torch.zeros(3, 6))
    assert torch.equal(more[:, :4], one.expand(3, 4))
    assert noise_of_places(torch.zeros(1, 4, dtype=torch.bool), dtype=torch.float32).dtype == torch.float32
    assert noise_of_places(torch.zeros(2, 4, 5)).shape == (2, 4, 5)


def test_settings_are_found_by_the_name_of_the_class():
    assert settings_of(InformationBottleneck).num_epochs == 3
    assert settings_of(WordIAT).descent == {"epsilon": 15.0}
    assert settings_of(AttentionAT) == settings_of(lambda: AttentionAT())
