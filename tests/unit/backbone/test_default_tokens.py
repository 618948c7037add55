"""Default tokens: the model against a loop by hand, its controls, and the data that goes with it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.default_tokens import DefaultTokens, restricted_attention
from attn_lightning.backbone.encoders import CNN, Average, BiLSTM
from attn_lightning.backbone.importance import importances
from attn_lightning.backbone.normalizers import Normalizer, Softmax, Sparsemax, TopK
from attn_lightning.checkpoint import add_checkpoint_contents, checkpoint_spec
from attn_lightning.data.embeddings import RandomEmbeddings
from attn_lightning.data.planted import Planted
from attn_lightning.data.text import TextOptions, TextTokenizer
from attn_lightning.errors import ConfigurationError, DataFormatError
from attn_lightning.methods import AttentionIVAT
from attn_lightning.methods.relation import Relation
from attn_lightning.step import TrainStep
from attn_lightning.types import Batch, DataSpec

K = 3
SPEC = DataSpec(2, 24, 6, ("a", "b"), num_default_tokens=K)
LENGTHS = torch.tensor([9, 4, 6, K + 1])


def small_encoder(size: int) -> BiLSTM:
    return BiLSTM(size, hidden_size=8)


def make_batch(extra: int = 0, seed: int = 1) -> Batch:
    """The last K ids of the vocabulary, then words."""
    mask = torch.arange(9 + extra) < LENGTHS.unsqueeze(1)
    words = torch.randint(1, 24 - K, mask.shape, generator=torch.Generator().manual_seed(seed))
    words[:, :K] = torch.arange(24 - K, 24)
    return Batch(words.masked_fill(~mask, 0), mask, torch.tensor([0, 1, 1, 0]), torch.arange(4))


def make_model(**options: Any) -> DefaultTokens:
    torch.manual_seed(0)
    model = DefaultTokens(SPEC, **options)
    with torch.no_grad():
        for parameter in (model.embedding.weight, *model.scorer.parameters()):
            parameter.mul_(10)
    return model


def test_logits_are_those_of_a_loop_over_the_default_tokens() -> None:
    model, batch = make_model(), make_batch()
    output = model(batch.tokens, batch.mask)
    states = model.encoder(model.embedding(batch.tokens), batch.mask)
    for row in range(4):
        scores = torch.stack([model.scorer(states, batch.mask)[row, k] for k in range(K)])
        weights = scores.exp() / scores.exp().sum()
        context = sum((weights[k] * model.classifier.values[k] for k in range(K)), torch.zeros(256))
        torch.testing.assert_close(output.attention[row, :K], weights, atol=1e-6, rtol=0)
        torch.testing.assert_close(output.context[row], context, atol=1e-5, rtol=0)
        logits = model.classifier.weight @ context + model.classifier.bias
        torch.testing.assert_close(output.logits[row], logits, atol=1e-5, rtol=0)
    assert torch.all(output.attention[:, K:] == 0)
    assert output.logits.std(0).min() > 1e-3, "texts must differ, or the test says nothing"


@pytest.mark.parametrize("encoder", [BiLSTM, CNN])
@pytest.mark.parametrize("normalizer", [Softmax, Sparsemax])
def test_padding_and_order_change_nothing(encoder: Any, normalizer: Any) -> None:
    model, order = make_model(encoder=encoder, normalizer=normalizer), torch.tensor([2, 0, 3, 1])
    batch, padded = make_batch(), make_batch(extra=5)
    padded = padded._replace(tokens=F.pad(batch.tokens, (0, 5)))
    expected = model(batch.tokens, batch.mask)
    found = model(padded.tokens, padded.mask)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.attention[:, :9], expected.attention, atol=1e-6, rtol=0)
    assert torch.all(found.hidden[~padded.mask] == 0)
    swapped = model(batch.tokens[order], batch.mask[order])
    torch.testing.assert_close(swapped.logits, expected.logits[order], atol=1e-6, rtol=0)


def test_the_text_acts_through_the_scores_alone() -> None:
    """With the attention of one text, any other text gives the same logits; without, it does not."""
    model, first, second = make_model(), make_batch(seed=1), make_batch(seed=2)
    one, other = (model(batch.tokens, batch.mask) for batch in (first, second))
    assert not torch.allclose(one.logits, other.logits, atol=1e-3)
    held = model(second.tokens, second.mask, one.attention)
    torch.testing.assert_close(held.logits, one.logits, atol=1e-6, rtol=0)
    _, found = importances(model, first, ("gradient", "gradient_full", "hidden"))
    assert torch.all(found["gradient"] == 0)
    assert torch.all(found["gradient_full"][first.mask] > 0)
    assert torch.all((found["hidden"] > 0) == (torch.arange(9) < K))


def test_gradient_reaches_words_scorer_and_values() -> None:
    model, batch = make_model(), make_batch()
    F.cross_entropy(model(batch.tokens, batch.mask).logits, batch.labels).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    assert model.embedding.weight.grad is not None
    assert model.embedding.weight.grad[batch.tokens[:, K]].any(1).all(), "also the words of the text"


def test_scores_can_be_differentiated_twice() -> None:
    model, batch = make_model(encoder=small_encoder).double(), make_batch()
    hidden = model.encode(model.embed(batch.tokens), batch.mask).detach()
    scores = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: model.attend(hidden, s, batch.mask).logits, scores)
    assert torch.autograd.gradgradcheck(lambda s: model.attend(hidden, s, batch.mask).logits, scores)


@pytest.mark.parametrize("normalizer", [Softmax, partial(TopK, 1)])
def test_shared_vector_gives_every_text_the_same_logits_exactly(normalizer: Callable[[], Normalizer]) -> None:
    model = make_model(shared=True, normalizer=normalizer)
    outputs = [model(batch.tokens, batch.mask) for batch in (make_batch(seed=seed) for seed in range(8))]
    contexts, logits = (torch.cat([getattr(output, name) for output in outputs]) for name in ("context", "logits"))
    assert torch.equal(contexts, contexts[:1].expand_as(contexts))
    assert torch.equal(logits, logits[:1].expand_as(logits))
    attention = torch.cat([output.attention[:, :K] for output in outputs])
    assert attention.std(0).max() > 1e-3, "although the attention differs"


def test_frozen_scorer_leaves_only_values_and_classifier_to_learn() -> None:
    model = DefaultTokens(SPEC, freeze_scorer=True)
    learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learned == {"classifier.weight", "classifier.bias", "classifier.values"}


def learn(model: DefaultTokens, steps: int = 60) -> float:
    """Accuracy on texts whose label is the word at place K, after training on it."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.03)
    tokens = torch.randint(1, 24 - K, (16, K + 2))
    tokens[:, :K] = torch.arange(24 - K, 24)
    labels = torch.arange(16) % 2
    tokens[:, K] = 1 + labels
    mask = torch.ones_like(tokens, dtype=torch.bool)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(tokens, mask).logits, labels).backward()
        optimizer.step()
    return float((model(tokens, mask).logits.argmax(1) == labels).float().mean())


def test_shortcut_is_learned_and_the_control_stays_at_the_majority_rate() -> None:
    torch.manual_seed(0)
    assert learn(DefaultTokens(SPEC, small_encoder)) > 0.95
    assert learn(DefaultTokens(SPEC, small_encoder, shared=True), steps=20) == 0.5


def test_an_encoder_that_does_not_read_the_text_finds_no_shortcut() -> None:
    """`Average` sees one token at a time, so the states of the default tokens are the same for all texts."""
    torch.manual_seed(0)
    assert learn(DefaultTokens(SPEC, Average), steps=20) == 0.5


def test_restricted_attention_against_a_loop() -> None:
    torch.manual_seed(0)
    attention, allowed = torch.rand(5, 6).softmax(1), torch.rand(5, 6) < 0.5
    allowed[:, 0] = True
    attention[2, allowed[2]] = 0.0
    found = restricted_attention(attention, allowed)
    for row in range(5):
        kept = [float(a) if ok else 0.0 for a, ok in zip(attention[row], allowed[row], strict=True)]
        if sum(kept) == 0:
            kept = [float(ok) for ok in allowed[row]]
        torch.testing.assert_close(found[row], torch.tensor(kept) / sum(kept))


def test_given_attention_on_words_counts_for_nothing_and_has_finite_gradients() -> None:
    model, batch = make_model(), make_batch()
    words = torch.zeros(4, 9)
    words[:, K] = 1.0
    attention = words.requires_grad_()
    output = model(batch.tokens, batch.mask, attention)
    torch.testing.assert_close(output.attention[:, :K], torch.full((4, K), 1 / K))
    (gradient,) = torch.autograd.grad(output.logits.sum(), attention)
    assert torch.isfinite(gradient).all()


def test_methods_run_on_it() -> None:
    """Attention iVAT and the relation loss give finite terms with gradients in the scorer."""
    model, batch = make_model(), make_batch()
    for method in (AttentionIVAT(), Relation()):
        output = model(batch.tokens, batch.mask)
        term = method.loss(TrainStep(model, batch, output, lambda z, y: F.cross_entropy(z, y, reduction="none"), 0.5))
        assert term is not None
        assert torch.isfinite(term.value)
        gradients = torch.autograd.grad(term.value, list(model.scorer.parameters()))
        assert any(gradient.any() for gradient in gradients)


def test_bfloat16_autocast_gives_float32() -> None:
    model, batch = make_model(encoder=CNN), make_batch()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(batch.tokens, batch.mask)
    for values in (output.logits, output.attention, output.scores, output.context):
        assert values.dtype == torch.float32


@pytest.mark.parametrize("number", [0, 1])
def test_data_without_default_tokens_is_refused(number: int) -> None:
    with pytest.raises(ConfigurationError, match=r"data\.default_tokens"):
        DefaultTokens(replace(SPEC, num_default_tokens=number))


def test_plain_classifier_has_a_linear_head_and_this_one_has_not() -> None:
    assert AttentionClassifier(SPEC).has_linear_head
    assert not make_model().has_linear_head


def test_checkpoint_keeps_the_number_and_older_ones_have_none() -> None:
    checkpoint: dict[str, Any] = {}
    add_checkpoint_contents(checkpoint, SPEC, None, None)
    assert checkpoint_spec(checkpoint) == SPEC
    del checkpoint["attn_lightning"]["num_default_tokens"]
    assert checkpoint_spec(checkpoint).num_default_tokens == 0


def test_tokenizer_puts_them_first_and_its_text_form_keeps_them() -> None:
    plain = TextTokenizer.train(["ruf mal", "mal dor"])
    tokenizer = TextTokenizer.train(["ruf mal", "mal dor"], options=TextOptions(default_tokens=2, max_length=2))
    assert tokenizer.vocabulary == [*plain.vocabulary, "<default 1>", "<default 2>"]
    texts = ["mal <default 1> ruf dor", "", "dor"]
    for read in (tokenizer, TextTokenizer.from_str(tokenizer.to_str())):
        encoding = read.encode_batch(texts)
        size = len(plain)
        assert [row[:2].tolist() for row in encoding.ids] == [[size, size + 1]] * 3
        assert all((row[2:] < size).all() for row in encoding.ids), "no text can name a default token"
        assert [len(row) for row in encoding.ids] == [4, 3, 3], "they come on top of `max_length`"
        assert encoding.unknown == [False, True, False]
        assert all((row[:2] == 0).all() for row in encoding.offsets)
        assert all((row[:2] == -1).all() for row in encoding.positions)
    words = tokenizer.encode_tokens([["<default 2>", "dor"]]).ids[0]
    assert words.tolist() == [len(plain), len(plain) + 1, 1, plain.vocabulary.index("dor")]


def test_tokenizer_whose_vocabulary_lacks_them_is_refused() -> None:
    with pytest.raises(DataFormatError, match="<default 1>"):
        TextTokenizer(["<pad>", "<unk>", "mal"], TextOptions(default_tokens=1))


def planted(folder: Path, number: int) -> Planted:
    made = Planted(
        20, 10, 10, max_length=14, cache=folder, default_tokens=number, embeddings=RandomEmbeddings(5, scale=0.3)
    )
    made.prepare_data()
    made.setup()
    return made


def test_data_is_the_same_behind_them(tmp_path: Path) -> None:
    """Ids, offsets and rationales shift by K, and everything else is as without."""
    plain, shifted = planted(tmp_path, 0), planted(tmp_path, 4)
    size = plain.spec.vocabulary_size
    assert (shifted.spec.vocabulary_size, shifted.spec.num_default_tokens) == (size + 4, 4)
    for row in range(10):
        old, new = plain.dataset("test")[row], shifted.dataset("test")[row]
        assert new["ids"] == [size, size + 1, size + 2, size + 3, *old["ids"]]
        assert new["rationale"] == [False] * 4 + old["rationale"]
        assert shifted.offsets("test", row) == [(0, 0)] * 4 + plain.offsets("test", row)
        assert (new["text"], new["label"]) == (old["text"], old["label"])
    vectors, fewer = shifted.spec.embedding_weights, plain.spec.embedding_weights
    assert vectors is not None
    assert fewer is not None
    assert torch.equal(vectors[:size], fewer), "word vectors do not know of them"
    assert len(vectors) == size + 4
    lengths: Tensor = vectors[size:].norm(dim=1)
    assert 0.2 < float(lengths.mean() / fewer[1:].norm(dim=1).mean()) < 2
    assert len(np.unique(vectors[size:].numpy(), axis=0)) == 4


def test_negative_number_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="default_tokens"):
        Planted(default_tokens=-1)
