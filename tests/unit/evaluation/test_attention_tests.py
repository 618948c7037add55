"""Tests of attention: against plain loops, scipy, autograd and what two tokens allow by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch import nn

from attn_lightning.backbone.bottleneck import BottleneckClassifier, GaussianBottleneck, NoiseGate
from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import Average, BiLSTM
from attn_lightning.backbone.normalizers import Sparsemax, Uniform
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation import attention_tests
from attn_lightning.evaluation.attention_tests import (
    adversarial_divergence,
    attend_head,
    held_head,
    permutation_change,
    permuted,
    prediction_change,
    row_draws,
    uniform_attention,
)
from attn_lightning.evaluation.diagnostic import (
    GuidedModel,
    Recipe,
    Split,
    guided_metrics,
    random_weights,
    steps_of,
    uniform_weights,
)
from attn_lightning.evaluation.families.attention_tests import BINS, AttentionTests
from attn_lightning.evaluation.subject import Explained, Ragged, Subject, no_progress
from attn_lightning.evaluation.suite import options_of
from attn_lightning.types import AttentionOutput, Batch, DataSpec

VOCABULARY = 30
LENGTHS = (5, 1, 7, 3, 2, 7, 4, 1, 6)


class Documents:
    """Random words in memory."""

    def __init__(self, lengths=LENGTHS, num_classes=2, seed=0, tokens=None, labels=None):
        generator = np.random.default_rng(seed)
        self.lengths = np.asarray(lengths)
        self.tokens = tokens or [generator.integers(1, VOCABULARY, n) for n in self.lengths]
        self.labels = generator.integers(0, num_classes, len(lengths)) if labels is None else np.asarray(labels)

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, rows):
        lengths = self.lengths[rows]
        tokens = np.zeros((len(rows), lengths.max(), *self.tokens[0].shape[1:]), self.tokens[0].dtype)
        for line, row in zip(tokens, rows, strict=True):
            line[: self.lengths[row]] = self.tokens[row]
        mask = np.arange(lengths.max()) < lengths[:, None]
        parts = (tokens, mask, self.labels[rows], np.asarray(rows))
        return Batch(*(torch.from_numpy(part) for part in parts))


class OwnBackbone(Backbone):
    """A head that is not linear in the weights."""

    def __init__(self, num_classes=2):
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, 6)
        self.scorer = nn.Linear(6, 1)
        self.layer = nn.Linear(6, 5)
        self.classifier = nn.Linear(5, num_classes)

    def embed(self, tokens):
        return self.words(tokens)

    def encode(self, embeddings, mask):
        return embeddings.masked_fill(~mask.unsqueeze(-1), 0.0)

    def score(self, hidden, mask):
        return self.scorer(hidden).squeeze(-1)

    def attend(self, hidden, scores, mask, attention=None):
        weights = scores.masked_fill(~mask, -torch.inf).softmax(-1) if attention is None else attention
        context = (weights.unsqueeze(-1) * hidden).sum(1)
        return AttentionOutput(self.classifier(self.layer(context).tanh()), weights, scores, hidden, context, mask)


class OtherHead(AttentionClassifier):
    """Known by its classifier, but with a head of its own."""

    def attend(self, hidden, scores, mask, attention=None):
        output = super().attend(hidden, scores, mask, attention)
        return replace(output, logits=output.logits.square())


def small_model(num_classes=2, encoder=BiLSTM, kind=AttentionClassifier, seed=0, **options):
    torch.manual_seed(seed)
    spec = DataSpec(num_classes, VOCABULARY, 6, tuple(f"class {c}" for c in range(num_classes)))
    model = kind(spec, encoder=encoder, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model.eval()


def own_model(num_classes=2):
    torch.manual_seed(0)
    return OwnBackbone(num_classes).eval()


MODELS = {
    "two classes": small_model,
    "three classes": lambda: small_model(3),
    "sparse": lambda: small_model(3, normalizer=Sparsemax),
    "noise gate": lambda: small_model(3, kind=BottleneckClassifier, compressor=NoiseGate),
    "gaussian": lambda: small_model(3, kind=BottleneckClassifier, compressor=GaussianBottleneck),
    "own head": lambda: small_model(3, kind=OtherHead),
    "own backbone": own_model,
}


def passed(model, lengths=LENGTHS, seed=0):
    batch = Documents(lengths, seed=seed)[list(range(len(lengths)))]
    with torch.no_grad():
        return batch, model(batch.tokens, batch.mask)


def subject_of(model, examples=None, **options):
    return Subject(model, examples or Documents(), options.pop("num_classes", 2), **options)


def measured(subject, **options):
    options = {"num_permutations": 7, "num_steps": 5, "diagnostic": False} | options
    count = len(subject.examples)
    explained = Explained(np.zeros((count, subject.num_classes)), subject.examples.labels, {})
    rows = AttentionTests(**options).run(subject, explained, no_progress)
    return {(row.metric, *row.setting.items()): row for row in rows}


def value(rows, metric, **setting):
    return rows[(metric, *setting.items())].value


def random_attention(mask, count, seed=3):
    scores = torch.randn(len(mask), count, mask.shape[1], generator=torch.Generator().manual_seed(seed))
    return scores.masked_fill(~mask.unsqueeze(1), -torch.inf).softmax(-1)


@pytest.mark.parametrize("name", MODELS)
def test_the_head_is_that_of_the_model_for_every_set_of_weights(name):
    model = MODELS[name]()
    batch, output = passed(model)
    weights = random_attention(batch.mask, 4).requires_grad_()
    logits = held_head(model, output)(weights)
    for k in range(4):
        with torch.no_grad():
            expected = model(batch.tokens, batch.mask, weights[:, k]).logits
        torch.testing.assert_close(logits[:, k], expected, atol=1e-5, rtol=1e-5)
    direction = torch.randn_like(logits)
    (ours,) = torch.autograd.grad(logits, weights, direction)
    (expected,) = torch.autograd.grad(attend_head(model, output)(weights), weights, direction)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_only_heads_that_are_known_to_be_linear_are_shortened():
    shortened = {
        name for name in MODELS if attention_tests.summed_states(model := MODELS[name](), passed(model)[1]) is not None
    }
    assert shortened == {"two classes", "three classes", "sparse", "noise gate", "gaussian"}


def test_the_encoder_runs_once_for_all_tests_on_the_head():
    model, calls = small_model(), []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    measured(subject_of(model, batch_size=100))
    assert len(calls) == 1


@pytest.mark.parametrize("name", MODELS)
def test_permutation_equals_a_loop_over_texts_and_permutations(name):
    model = MODELS[name]()
    batch, output = passed(model)
    keys = torch.rand(len(LENGTHS), 6, batch.mask.shape[1], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        changes = permutation_change(held_head(model, output), output, keys, chunk=4)
        for row, n in enumerate(LENGTHS):
            tokens, mask = batch.tokens[row : row + 1, :n], torch.ones(1, n, dtype=torch.bool)
            clean = model(tokens, mask)
            for k in range(6):
                weights = clean.attention[:, np.argsort(keys[row, k, :n].numpy())]
                other = model(tokens, mask, weights).logits.softmax(1)
                expected = (other - clean.logits.softmax(1)).abs().sum() / 2
                torch.testing.assert_close(changes[row, k], expected, atol=2e-5, rtol=1e-4)
    assert changes.max() > 1e-3


def test_of_two_classes_the_change_is_that_of_one_probability():
    logits, original = torch.randn(20, 2), torch.randn(20, 2)
    expected = (logits.softmax(1)[:, 1] - original.softmax(1)[:, 1]).abs()
    torch.testing.assert_close(prediction_change(logits, original), expected)


def test_every_permutation_is_equally_likely_and_padding_stays_empty():
    attention = torch.tensor([[0.1, 0.3, 0.6, 0.0]])
    mask = torch.tensor([[True, True, True, False]])
    keys = row_draws(subject_of(small_model()), torch.tensor([0]), torch.tensor([3]), (6000, 4), 0)
    drawn = permuted(attention, mask, keys)[0]
    assert (drawn[:, 3] == 0).all()
    orders, counts = np.unique(drawn[:, :3].numpy(), axis=0, return_counts=True)
    assert len(orders) == 6
    # Six binomial counts with mean 1000 and deviation 29.
    assert np.abs(counts - 1000).max() < 150


def test_permutations_of_one_token_or_of_constant_weights_change_nothing():
    _, output = passed(small_model(normalizer=Uniform))
    keys = torch.rand(len(LENGTHS), 5, max(LENGTHS))
    assert permutation_change(held_head(small_model(normalizer=Uniform), output), output, keys, 5).max() < 1e-6
    model = small_model()
    _, output = passed(model, (1, 3))
    with torch.no_grad():
        assert permutation_change(held_head(model, output), output, keys[:2, :, :3], 5)[0].max() < 1e-6


def test_draws_depend_on_the_row_and_the_purpose_alone():
    subject = subject_of(small_model())
    rows, lengths = torch.tensor([4, 2]), torch.tensor([3, 5])
    draws = row_draws(subject, rows, lengths, (2, 6), 0)
    assert (draws[0, :, 3:] == 0).all()
    torch.testing.assert_close(draws[1, :, :5], row_draws(subject, rows[1:], lengths[1:], (2, 5), 0)[0])
    assert not torch.equal(draws, row_draws(subject, rows, lengths, (2, 6), 1))
    assert not torch.equal(draws, row_draws(replace(subject, seed=1), rows, lengths, (2, 6), 0))


@pytest.mark.parametrize("name", ["two classes", "sparse", "own backbone"])
def test_the_divergence_of_the_start_is_that_of_scipy(name):
    model = MODELS[name]()
    _, output = passed(model)
    start = torch.randn(len(LENGTHS), 1, max(LENGTHS)) * 3
    found = adversarial_divergence(held_head(model, output), output, start, num_steps=0, threshold=1.0)
    for row, n in enumerate(LENGTHS):
        candidate = start[row, 0, :n].softmax(0)
        expected = jensenshannon(candidate, output.attention[row, :n]) ** 2 if n > 1 else 0.0
        assert found[row].item() == pytest.approx(expected, abs=1e-6)


def searched_by_autograd(model, tokens, start, num_steps, learning_rate, threshold):
    """The objective written down once more, for one text and one candidate, with nothing by hand."""
    mask = torch.ones_like(tokens, dtype=torch.bool)
    clean = model(tokens, mask)
    hidden, attention, p = clean.hidden.detach(), clean.attention.detach()[0], clean.logits.detach().softmax(1)
    scores = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([scores], lr=learning_rate, amsgrad=True)
    best = 0.0
    for step in range(num_steps + 1):
        weights = scores.softmax(0)
        q = model.attend(hidden, clean.scores.detach(), mask, weights.unsqueeze(0)).logits.softmax(1)
        change = (p - q).abs().sum() / 2
        middle = (weights + attention) / 2
        divergence = (weights * (weights / middle).log()).sum() / 2 + (attention * (attention / middle).log()).sum() / 2
        if change <= threshold:
            best = max(best, divergence.item())
        if step < num_steps:
            optimizer.zero_grad()
            (500 * torch.relu(change - threshold) - divergence).backward()
            optimizer.step()
    return best


@pytest.mark.parametrize("name", ["two classes", "three classes", "gaussian", "own backbone"])
def test_the_search_equals_one_by_autograd_text_by_text(name):
    model = MODELS[name]().double()
    lengths = (4, 6, 2)
    batch, output = passed(model, lengths)
    start = 2 * torch.randn(3, 2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = adversarial_divergence(held_head(model, output), output, start, 25, 0.08, 0.02)
    for row, n in enumerate(lengths):
        paths = [
            searched_by_autograd(model, batch.tokens[row : row + 1, :n], start[row, k, :n], 25, 0.08, 0.02)
            for k in range(2)
        ]
        assert found[row].item() == pytest.approx(max(paths), abs=1e-6)
    assert found.max() > 0.01


def two_tokens(share, votes):
    """A text of two tokens with a given attention whose logits of class 1 against 0 are `votes`, and its head."""
    attention = torch.tensor([[share, 1 - share]], dtype=torch.float64)
    table = torch.tensor([[[0.0, votes[0]], [0.0, votes[1]]]], dtype=torch.float64)

    def head(weights):
        return weights @ table

    logits = head(attention.unsqueeze(1))[:, 0]
    mask = torch.ones(1, 2, dtype=torch.bool)
    return AttentionOutput(logits, attention, attention, table, logits, mask), head


def divergence_of_two(first, second):
    return jensenshannon([first, 1 - first], [second, 1 - second]) ** 2


@pytest.mark.parametrize("share", [0.5, 0.7, 0.99])
def test_two_tokens_that_say_the_same_let_attention_go_anywhere(share):
    # Every candidate keeps the prediction, so the best one is the end of the segment that is farther away.
    output, head = two_tokens(share, (1.5, 1.5))
    bound = max(divergence_of_two(0.0, share), divergence_of_two(1.0, share))
    start = torch.tensor([[[2.0, -2.0], [-2.0, 2.0]]], dtype=torch.float64)
    found = adversarial_divergence(head, output, start).item()
    assert bound - 3e-3 < found <= bound + 1e-9


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_two_tokens_that_differ_let_attention_go_as_far_as_the_prediction_allows(share):
    # p = sigmoid(v2 + c (v1 - v2)) is monotone in the first weight c, so |p - p0| <= 0.05 is an interval of c.
    votes = (2.0, -1.0)
    output, head = two_tokens(share, votes)
    p = output.logits.softmax(1)[0, 1].item()
    ends = [(np.log(q / (1 - q)) - votes[1]) / (votes[0] - votes[1]) for q in (p - 0.05, p + 0.05)]
    bound = max(divergence_of_two(end, share) for end in ends)
    start = torch.tensor([[[1.0, -1.0], [-1.0, 1.0], [0.0, 0.0]]], dtype=torch.float64)
    found = adversarial_divergence(head, output, start, threshold=0.05).item()
    # The penalty leaves little to gain near the threshold.
    assert 0.8 * bound < found <= bound + 1e-9


def test_the_search_stays_between_nothing_and_ln_2_and_needs_a_candidate_that_is_allowed():
    model = small_model(3)
    _, output = passed(model)
    start = 3 * torch.randn(len(LENGTHS), 3, max(LENGTHS), generator=torch.Generator().manual_seed(2))
    found = adversarial_divergence(held_head(model, output), output, start, num_steps=60)
    assert (found >= 0).all()
    assert (found <= np.log(2)).all()
    assert (found[torch.tensor(LENGTHS) == 1] < 1e-6).all()
    none_allowed = adversarial_divergence(held_head(model, output), output, start, num_steps=0, threshold=0.0)
    # One token is the attention itself.
    assert (none_allowed < 1e-6).all()


def test_more_steps_and_a_looser_threshold_find_no_less():
    model = small_model()
    _, output = passed(model)
    start = 3 * torch.randn(len(LENGTHS), 3, max(LENGTHS), generator=torch.Generator().manual_seed(2))
    head = held_head(model, output)
    few, many = (adversarial_divergence(head, output, start, num_steps=steps) for steps in (5, 60))
    assert (many >= few).all()
    assert (many > few).any()


def test_uniform_attention_equals_a_loop():
    model, documents = small_model(), Documents()
    rows = measured(subject_of(model, documents))
    changes, flips, right, right_uniform = [], [], [], []
    for row, n in enumerate(LENGTHS):
        batch = documents[[row]]
        with torch.no_grad():
            clean = model(batch.tokens, batch.mask).logits
            uniform = model(batch.tokens, batch.mask, torch.full((1, n), 1 / n)).logits
        right.append(clean.argmax().item() == documents.labels[row])
        right_uniform.append(uniform.argmax().item() == documents.labels[row])
        if n > 1:
            changes.append((clean.softmax(1) - uniform.softmax(1)).abs().sum().item() / 2)
            flips.append(clean.argmax().item() != uniform.argmax().item())
    assert value(rows, "uniform_change") == pytest.approx(np.mean(changes), abs=1e-6)
    assert value(rows, "uniform_flip") == pytest.approx(np.mean(flips))
    assert value(rows, "accuracy", attention="model") == pytest.approx(np.mean(right))
    assert value(rows, "accuracy", attention="uniform") == pytest.approx(np.mean(right_uniform))
    assert rows[("uniform_change",)].n_valid == sum(n > 1 for n in LENGTHS)


def test_the_rows_by_largest_weight_split_the_texts_with_a_choice():
    rows = measured(subject_of(small_model()))
    parts = [rows[("permutation_change", ("max_attention", name))] for name in BINS]
    whole = rows[("permutation_change",)]
    assert sum(part.n_valid for part in parts) == whole.n_valid == sum(n > 1 for n in LENGTHS)
    assert whole.n == len(LENGTHS)
    total = sum(part.n_valid * part.value for part in parts if part.n_valid)
    assert total / whole.n_valid == pytest.approx(whole.value)
    _, output = passed(small_model())
    largest = output.attention.amax(1).numpy()[np.asarray(LENGTHS) > 1]
    assert [part.n_valid for part in parts] == np.histogram(largest, [0, 0.25, 0.5, 0.75, 1.01])[0].tolist()


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 3}, {"token_budget": 8}])
@pytest.mark.parametrize("make", [small_model, own_model])
def test_batches_and_their_padding_change_nothing(make, options):
    subject = subject_of(make().double())
    expected = measured(subject, num_steps=30)
    found = measured(replace(subject, **options), num_steps=30)
    assert list(found) == list(expected)
    for key, row in expected.items():
        assert (found[key].value is None) == (row.value is None)
        if row.value is not None:
            assert found[key].value == pytest.approx(row.value, abs=1e-7)


def test_the_seed_decides_the_draws():
    subject = subject_of(small_model())
    first, again = measured(subject), measured(subject)
    assert first == again
    other = measured(replace(subject, seed=1))
    for metric in ("permutation_change", "adversarial_divergence"):
        assert value(other, metric) != value(first, metric)


def test_unlabelled_examples_have_no_accuracy():
    documents = Documents(labels=[0, 1, -1, 0, -1, 1, 0, 0, 1])
    row = measured(subject_of(small_model(), documents))[("accuracy", ("attention", "model"))]
    assert (row.n_valid, row.n) == (7, 9)


def test_other_models_equal_a_loop_with_scipy():
    model, documents = small_model(), Documents()
    seeds = [small_model(seed=1), small_model(seed=2)]
    rows = measured(subject_of(model, documents), others={"seeds": seeds, "itself": model})
    divergences, changes, right = [], [], []
    for row, n in enumerate(LENGTHS):
        batch = documents[[row]]
        with torch.no_grad():
            ours = model(batch.tokens, batch.mask)
            theirs = [other(batch.tokens, batch.mask) for other in seeds]
        pairs = [(ours.attention[0].double(), other.attention[0].double()) for other in theirs]
        if n > 1:
            divergences.append(np.mean([jensenshannon(a, b) ** 2 for a, b in pairs]))
        changes.append(np.mean([(ours.logits.softmax(1) - o.logits.softmax(1)).abs().sum() / 2 for o in theirs]))
        right.append(np.mean([o.logits.argmax().item() == documents.labels[row] for o in theirs]))
    assert value(rows, "attention_divergence", other="seeds") == pytest.approx(np.mean(divergences), abs=1e-6)
    assert value(rows, "prediction_change", other="seeds") == pytest.approx(np.mean(changes), abs=1e-6)
    assert value(rows, "accuracy", other="seeds") == pytest.approx(np.mean(right))
    assert value(rows, "attention_divergence", other="itself") == pytest.approx(0, abs=1e-9)
    assert value(rows, "prediction_change", other="itself") == 0
    assert value(rows, "accuracy", other="itself") == value(rows, "accuracy", attention="model")


def test_another_model_of_other_classes_is_refused():
    with pytest.raises(ConfigurationError, match=r"'wide'.*2 classes.*3"):
        measured(subject_of(small_model()), others={"wide": small_model(3)})


def test_stored_results_know_the_weights_of_other_models():
    one, same, other = (options_of(AttentionTests(others={"seed": small_model(seed=s)})) for s in (1, 1, 2))
    assert one == same
    assert one != other


@pytest.mark.parametrize(
    "options",
    [{"num_permutations": 0}, {"num_candidates": 0}, {"num_steps": 0}, {"threshold": 1.0}, {"learning_rate": 0.0}],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        AttentionTests(**options)


def test_the_adversary_can_be_left_out():
    assert not any(key[0] == "adversarial_divergence" for key in measured(subject_of(small_model()), adversarial=False))


def marked_texts(count, seed):
    """Texts with one word for each class among others: which of them counts is known to the weights only."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, count)
    tokens, weights = [], []
    for label in labels:
        text = np.concatenate([[1, 2], generator.integers(3, VOCABULARY, 4)])
        generator.shuffle(text)
        tokens.append(text)
        weights.append((text == label + 1).astype(np.float32))
    lengths = np.full(count, 6)
    documents = Documents(lengths, tokens=tokens, labels=labels)
    guides = {"marks": Ragged(np.concatenate(weights), lengths), "uniform": uniform_weights(lengths)}
    return Split(documents, labels, guides, VOCABULARY - 1)


def test_a_guided_model_is_as_good_as_its_weights():
    train, test = marked_texts(300, 0), marked_texts(100, 1)
    subject = subject_of(small_model())
    told = []
    found = {g: guided_metrics(subject, train, test, g, Recipe(), told.append) for g in ("marks", "uniform", None)}
    assert found["marks"]["accuracy"] == 1
    assert found["uniform"]["accuracy"] < 0.7
    assert found[None]["accuracy"] < 0.7
    assert sum(told) == 3 * (5 * 300 + 100)


def test_a_guided_model_does_not_depend_on_memory_and_repeats():
    train, test = marked_texts(60, 0), marked_texts(40, 1)
    subject = subject_of(small_model())
    state = torch.get_rng_state()
    first = guided_metrics(subject, train, test, "uniform", Recipe(), no_progress)
    assert torch.equal(state, torch.get_rng_state())
    assert guided_metrics(subject, train, test, "uniform", Recipe(), no_progress) == first
    small = guided_metrics(
        replace(subject, token_budget=30, batch_size=5), train, test, "uniform", Recipe(), no_progress
    )
    assert small == pytest.approx(first, abs=1e-4)


def test_a_guided_model_without_labels_has_no_accuracy():
    train, test = marked_texts(10, 0), marked_texts(10, 1)
    for splits in (
        (replace(train, labels=train.labels * 0 - 1), test),
        (train, replace(test, labels=test.labels * 0 - 1)),
    ):
        metrics = guided_metrics(subject_of(small_model()), *splits, "uniform", Recipe(), no_progress)
        assert np.isnan(metrics["accuracy"])


def test_a_guided_model_is_the_formula():
    torch.manual_seed(0)
    model = GuidedModel(3, 10, 0, Recipe(embedding_size=4, hidden_size=5))
    nn.init.normal_(model.embedding.weight)
    tokens = torch.tensor([[3, 7, 12], [5, 0, 0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    weights = torch.tensor([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]])
    logits = model(tokens, mask, weights)
    for row, words in enumerate([(3, 7, 0), (5,)]):
        context = sum(
            weights[row, t] * torch.tanh(model.hidden(model.embedding.weight[word])) for t, word in enumerate(words)
        )
        torch.testing.assert_close(logits[row], model.classifier(context))


def test_long_splits_are_trained_on_for_a_limited_number_of_steps():
    recipe = Recipe(num_epochs=3, num_steps=4, batch_size=2)
    assert steps_of(Documents(), recipe) == 4
    assert steps_of(Documents((3, 2, 2)), recipe) == 4
    assert steps_of(Documents((3, 2)), recipe) == 3
    train, told = marked_texts(9, 0), []
    guided_metrics(subject_of(small_model()), train, train, "uniform", recipe, told.append)
    assert len(told[:-1]) == 4
    assert told[-1] == 9


def test_the_diagnostic_compares_the_weights_of_every_model():
    training = Documents((4, 3, 6, 2, 5, 3) * 5, seed=1)
    subject = subject_of(small_model(), training=training)
    seeds = [small_model(seed=1), small_model(seed=2)]
    rows = measured(
        subject, diagnostic=True, adversarial=False, others={"adversary": small_model(seed=3), "seeds": seeds}
    )
    guides = [dict(key[1:])["weights"] for key in rows if key[0] == "diagnostic_accuracy"]
    assert guides == ["model", "other adversary", "other seeds 0", "other seeds 1", "uniform", "random", "learned"]
    assert {key[0] for key in rows if "weights" in dict(key[1:])} == {
        f"diagnostic_{m}" for m in ("accuracy", "f1", "macro_f1")
    }
    again = measured(replace(subject, batch_size=2), diagnostic=True, adversarial=False)
    for guide in ("model", "uniform", "random", "learned"):
        expected = value(rows, "diagnostic_accuracy", weights=guide)
        assert value(again, "diagnostic_accuracy", weights=guide) == pytest.approx(expected)


def test_the_diagnostic_works_on_segments():
    generator = np.random.default_rng(0)
    parts = [generator.normal(size=(n, 2, 3)).astype(np.float32) for n in LENGTHS]
    train = Split(Documents(tokens=parts), Documents().labels, {"uniform": uniform_weights(LENGTHS)}, -1)
    metrics = guided_metrics(subject_of(small_model()), train, train, "uniform", Recipe(), no_progress)
    assert metrics["accuracy"] > 0.5


def test_without_a_training_split_the_diagnostic_says_so():
    rows = measured(subject_of(small_model()), diagnostic=True)
    (key,) = [key for key in rows if key[0].startswith("diagnostic")]
    assert rows[key].value is None
    assert rows[key].setting["missing"] == "no training split"


@pytest.mark.parametrize("training", [None, Documents((3, 4, 2) * 30, seed=1)])
def test_progress_tells_of_every_example_once(training):
    subject, told = subject_of(small_model(), training=training), []
    explained = Explained(np.zeros((9, 2)), subject.examples.labels, {})
    AttentionTests(3, num_steps=2).run(subject, explained, told.append)
    assert sum(told) == len(LENGTHS)
    assert min(told) >= 0


def test_random_weights_are_spread_over_all_attention_a_text_can_get():
    lengths = np.asarray([3] * 4000 + [1, 5])
    weights = random_weights(lengths, torch.Generator().manual_seed(0))
    sums = np.add.reduceat(weights.values, weights.starts)
    np.testing.assert_allclose(sums, 1, atol=1e-6)
    triples = weights.values[: 3 * 4000].reshape(-1, 3)
    # Moments of a flat Dirichlet distribution over three tokens.
    np.testing.assert_allclose(triples.mean(0), 1 / 3, atol=0.02)
    np.testing.assert_allclose(triples.var(0), 1 / 18, atol=0.004)


def test_nothing_is_left_behind():
    model = small_model().train()
    with torch.inference_mode():
        measured(subject_of(model, training=Documents((3, 4, 2), seed=1)), diagnostic=True)
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_uniform_attention_is_one_over_n():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    torch.testing.assert_close(uniform_attention(mask), torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]))


def test_a_frozen_average_encoder_serves_too():
    rows = measured(subject_of(small_model(encoder=Average)))
    assert value(rows, "permutation_change") > 0
