"""Erased texts in packed batches, against a plain loop over one text at a time."""

import numpy as np
import pytest
import torch
from torch import nn

from attn_lightning.backbone.bottleneck import BottleneckClassifier
from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import CNN, Average, BiLSTM
from attn_lightning.backbone.normalizers import Softmax, Sparsemax, TopK, Uniform
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.erasure import Variants, inference, removals_until_flip
from attn_lightning.evaluation.subject import Subject
from attn_lightning.types import AttentionOutput, Batch, DataSpec

UNKNOWN = 1
LENGTHS = (5, 1, 7, 3)


class Two(BiLSTM):
    """Two layers, whose second one reads states that depend on the whole text."""

    def __init__(self, input_size):
        super().__init__(input_size, 4, num_layers=2)


class Reading(AttentionClassifier):
    """A subclass with an `encode` of its own: no short cut may pass it by."""

    def encode(self, embeddings, mask):
        return 2 * super().encode(embeddings, mask)


class Segments(Backbone):
    """Segments of 2 x 3 numbers with an encoder that looks at the neighbours."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Conv1d(6, 4, 3, padding=1), nn.Linear(4, 3)

    def embed(self, tokens):
        return tokens.flatten(2)

    def encode(self, embeddings, mask):
        padding = ~mask.unsqueeze(-1)
        states = self.layer(embeddings.masked_fill(padding, 0).transpose(1, 2)).transpose(1, 2)
        return torch.tanh(states).masked_fill(padding, 0)

    def score(self, hidden, mask):
        return 3 * hidden[..., 0]

    def attend(self, hidden, scores, mask, attention=None):
        weights = scores.masked_fill(~mask, -torch.inf).softmax(-1) if attention is None else attention
        context = (weights.unsqueeze(-1) * hidden).sum(1)
        return AttentionOutput(self.head(context), weights, scores, hidden, context, mask)


MODELS = {
    "lstm": {"encoder": BiLSTM},
    "two layers": {"encoder": Two},
    "cnn": {"encoder": CNN},
    "average": {"encoder": Average},
    "sparsemax": {"encoder": Average, "normalizer": Sparsemax},
    "bottleneck": {"encoder": BiLSTM, "cls": BottleneckClassifier},
    "own encode": {"encoder": BiLSTM, "cls": Reading},
}


def small_model(name="lstm", normalizer=Softmax, encoder=None, cls=AttentionClassifier):
    torch.manual_seed(0)
    if name == "segments":
        return Segments().double().eval()
    options = {"normalizer": normalizer, **MODELS[name]}
    cls = options.pop("cls", cls)
    model = cls(DataSpec(3, 20, 6, ("a", "b", "c")), **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
        model.embedding.weight.mul_(3)
    return model.double().eval()


def small_batch(kind="text", lengths=LENGTHS):
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    shape = mask.shape
    tokens = torch.randint(2, 20, shape, generator=generator).masked_fill(~mask, 0)
    if kind == "segments":
        tokens = torch.randn(*shape, 2, 3, generator=generator, dtype=torch.float64)
        tokens = tokens * mask[..., None, None]
    return Batch(tokens, mask, torch.zeros(len(lengths), dtype=torch.int64), torch.arange(len(lengths)))


def small_subject(model, **options):
    return Subject(model, None, 3, **{"erased": UNKNOWN, **options})


def variants(batch, count=60, seed=0):
    """Random masks with everything, nothing, repetitions and bits at padding among them."""
    generator = np.random.default_rng(seed)
    owners = generator.integers(0, len(batch.mask), count)
    keep = generator.random((count, batch.mask.shape[1])) < generator.random((count, 1))
    keep[:4], keep[4:8] = True, False
    owners[:4] = owners[4:8] = range(4)
    owners[-10:], keep[-10:] = owners[8:18], keep[8:18]
    return owners, keep


def erased(subject, batch, owners, keep, replacement="delete", output=None):
    return Variants(subject, batch, output).erased(owners, keep, replacement)


def one_by_one(model, batch, owners, keep, replacement):
    """The definition, one text at a time, without padding."""
    expected = []
    for owner, kept in zip(owners, torch.from_numpy(keep), strict=True):
        real = batch.mask[owner]
        tokens, kept = batch.tokens[owner, real], kept[real]
        nothing = torch.zeros_like(tokens[:1]) if tokens.is_floating_point() else torch.tensor([UNKNOWN])
        if replacement == "attention":
            whole = model(tokens[None], torch.ones(1, len(tokens), dtype=torch.bool))
            hidden, scores = whole.hidden[:, kept], whole.scores[:, kept]
            if kept.any():
                output = model.attend(hidden, scores, torch.ones(1, int(kept.sum()), dtype=torch.bool))
            else:
                output = model.attend(whole.hidden, whole.scores, whole.mask, torch.zeros_like(whole.scores))
        else:
            if replacement == "unknown":
                tokens = torch.where(kept.view(-1, *[1] * (tokens.dim() - 1)), tokens, nothing)
            else:
                tokens = tokens[kept] if kept.any() else nothing
            output = model(tokens[None], torch.ones(1, len(tokens), dtype=torch.bool))
        expected.append(output.logits[0].detach().softmax(-1).numpy())
    return np.stack(expected)


@pytest.mark.parametrize("token_budget", [1, 2**16])
@pytest.mark.parametrize("replacement", ["delete", "unknown", "attention"])
@pytest.mark.parametrize("name", [*MODELS, "segments"])
def test_equals_one_text_at_a_time(name, replacement, token_budget):
    model, batch = small_model(name), small_batch(name)
    owners, keep = variants(batch)
    subject = small_subject(model, token_budget=token_budget, erased=None if name == "segments" else UNKNOWN)
    found = erased(subject, batch, owners, keep, replacement)
    expected = one_by_one(model, batch, owners, keep, replacement)
    np.testing.assert_allclose(found, expected, atol=1e-6 if name == "lstm" else 1e-9)
    assert np.ptp(expected, axis=0).min() > 0.01


@pytest.mark.parametrize("replacement", ["delete", "unknown", "attention"])
@pytest.mark.parametrize("name", ["lstm", "cnn"])
def test_float32_padding_order_and_other_variants_change_nothing(name, replacement):
    model, batch = small_model(name).float(), small_batch()
    owners, keep = variants(batch)
    expected = erased(small_subject(model), batch, owners, keep, replacement)
    order, turn = np.random.default_rng(1).permutation(len(owners)), torch.tensor([2, 0, 3, 1])
    wider = Batch(
        nn.functional.pad(batch.tokens, (0, 4))[turn],
        nn.functional.pad(batch.mask, (0, 4))[turn],
        batch.labels,
        batch.rows[turn],
    )
    places = turn.argsort().numpy()[owners][order]
    found = erased(small_subject(model), wider, places, np.pad(keep[order], [(0, 0), (0, 4)]), replacement)
    np.testing.assert_allclose(found, expected[order], atol=1e-6)
    alone = erased(small_subject(model), batch, owners[9:10], keep[9:10], replacement)
    np.testing.assert_allclose(alone, expected[9:10], atol=1e-6)


def test_the_clean_pass_can_be_given():
    model, batch = small_model(), small_batch()
    owners, keep = variants(batch)
    given = model(batch.tokens, batch.mask)
    expected = erased(small_subject(model), batch, owners, keep, "attention")
    encoded = []
    model.encoder.register_forward_hook(lambda *_: encoded.append(1))
    found = erased(small_subject(model), batch, owners, keep, "attention", given)
    np.testing.assert_allclose(found, expected)
    assert encoded == []


@pytest.mark.parametrize("name", ["lstm", "cnn"])
def test_equal_variants_run_once_and_many_at_a_time(name):
    model, batch, texts = small_model(name), small_batch(), []
    model.scorer.register_forward_hook(lambda module, inputs, output: texts.append(len(output)))
    owners = np.repeat(np.arange(4), 30)
    keep = np.tile(np.arange(7) < np.array([1, 2, 3])[:, None], (40, 1))
    found = erased(small_subject(model), batch, owners, keep)
    distinct = {(owner, n) for owner, length in enumerate(LENGTHS) for n in (1, 2, 3) if n <= length}
    assert sum(texts) == len(distinct)
    assert len(texts) <= 2
    np.testing.assert_array_equal(found[:3], found[3:6])


def test_no_variants_give_no_rows():
    found = erased(small_subject(small_model()), small_batch(), np.zeros(0, int), np.zeros((0, 7), bool))
    assert found.shape == (0, 3)


def test_modes_are_restored_and_dropout_is_off():
    model, batch = small_model(), small_batch()
    owners, keep = variants(batch)
    expected = erased(small_subject(model), batch, owners, keep)
    model.embedding_dropout.p = model.encoder_dropout.p = 0.5
    model.train()
    model.scorer.eval()
    for replacement in ("delete", "attention"):
        found = erased(small_subject(model), batch, owners, keep, replacement)
        if replacement == "delete":
            np.testing.assert_allclose(found, expected, atol=1e-6)
    scales = np.random.default_rng(0).random(keep.shape)
    found = Variants(small_subject(model), batch).scaled(owners, scales)
    assert model.training
    assert not model.scorer.training
    again = Variants(small_subject(model.eval()), batch).scaled(owners, scales)
    np.testing.assert_array_equal(found, again)
    model.train()
    with pytest.raises(RuntimeError, match="broken"), inference(model):
        raise RuntimeError("broken")
    assert model.training


def test_an_unknown_replacement_and_a_missing_word_are_refused():
    model, batch = small_model(), small_batch()
    nothing = np.zeros((1, 7), bool)
    with pytest.raises(ConfigurationError, match=r"delete.*unknown.*attention.*'mask'"):
        erased(small_subject(model), batch, np.zeros(1, int), nothing, "mask")
    with pytest.raises(ConfigurationError, match="Expected `erased`"):
        erased(small_subject(model, erased=None), batch, np.zeros(1, int), nothing)
    found = erased(small_subject(model, erased=None), batch, np.zeros(1, int), ~nothing)
    assert found.shape == (1, 3)


@pytest.mark.parametrize("token_budget", [1, 40, 2**16])
@pytest.mark.parametrize("name", ["lstm", "cnn", "segments"])
def test_scaled_embeddings_equal_one_text_at_a_time(name, token_budget):
    model, batch = small_model(name), small_batch(name)
    owners, _ = variants(batch)
    scales = np.random.default_rng(0).random((len(owners), 7))
    scales[:2] = 0
    found = Variants(small_subject(model, token_budget=token_budget), batch).scaled(owners, scales)
    for owner, scale, probabilities in zip(owners, torch.from_numpy(scales), found, strict=True):
        real = batch.mask[owner]
        mask = torch.ones(1, int(real.sum()), dtype=torch.bool)
        embeddings = model.embed(batch.tokens[owner : owner + 1, real]) * scale[real].unsqueeze(-1)
        hidden = model.encode(embeddings, mask)
        expected = model.attend(hidden, model.score(hidden, mask), mask).logits[0].softmax(-1)
        np.testing.assert_allclose(probabilities, expected.detach().numpy(), atol=1e-9)


def flips_one_by_one(model, batch, predicted, scores):
    removals = []
    for row, real in enumerate(batch.mask):
        whole = model(batch.tokens[row : row + 1, real], torch.ones(1, int(real.sum()), dtype=torch.bool))
        order = sorted(range(int(real.sum())), key=lambda t: (-scores[row, t], t))
        found = 0
        for k in range(1, len(order)):
            rest = torch.zeros_like(whole.mask)
            rest[0, order[k:]] = True
            if found == 0 and model.attend(whole.hidden, whole.scores, rest).logits.argmax() != predicted[row]:
                found = k
        removals.append(found)
    return removals


@pytest.mark.parametrize("normalizer", [Softmax, Sparsemax, Uniform, TopK])
@pytest.mark.parametrize("ties", [False, True])
def test_flips_equal_one_number_of_removals_at_a_time(normalizer, ties):
    lengths = (12, 1, 7, 3, 9, 2, 11, 12, 5, 8)
    model, batch = small_model("average", normalizer), small_batch(lengths=lengths)
    with torch.no_grad():
        model.classifier.bias.zero_()
    output = model(batch.tokens, batch.mask)
    predicted = output.logits.argmax(-1).numpy()
    scores = np.random.default_rng(0).normal(size=batch.mask.shape)
    scores = scores.round() if ties else scores
    expected = flips_one_by_one(model, batch, predicted, scores)
    np.testing.assert_array_equal(removals_until_flip(small_subject(model), output, predicted, scores), expected)
    assert len(set(expected)) > 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("replacement", ["delete", "unknown", "attention"])
def test_works_on_cuda(replacement):
    model, batch = small_model().float(), small_batch()
    owners, keep = variants(batch)
    expected = erased(small_subject(model), batch, owners, keep, replacement)
    there = Batch(*(None if value is None else value.cuda() for value in batch))
    subject = small_subject(model.cuda(), device=torch.device("cuda"))
    found = erased(subject, there, owners, keep, replacement)
    np.testing.assert_allclose(found, expected, atol=1e-4)
