"""The token bottlenecks against torch.distributions, draws and plain statistics; the model that is built on them."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from attn_lightning.backbone.bottleneck import (
    LARGEST_GATE,
    BottleneckClassifier,
    Compressor,
    GaussianBottleneck,
    LearnerGate,
    NoiseGate,
    gate_attention,
    gate_divergence,
    gaussian_divergence,
    merged_moments,
    open_gates,
)
from attn_lightning.backbone.importance import importances
from attn_lightning.methods import AttentionIVAT
from attn_lightning.step import TrainStep
from attn_lightning.types import Batch, DataSpec

SPEC = DataSpec(3, 20, 5, ("a", "b", "c"))
MASK = torch.arange(6) < torch.tensor([6, 3, 4])[:, None]
D = 256


@pytest.fixture(params=[NoiseGate, GaussianBottleneck, LearnerGate])
def model(request: pytest.FixtureRequest) -> BottleneckClassifier:
    torch.manual_seed(0)
    model = BottleneckClassifier(SPEC, compressor=request.param)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        if isinstance(model.compressor, NoiseGate):
            model.compressor.mean.normal_()
            model.compressor.deviation.uniform_(0.5, 2.0)
    return model


def tokens(seed: int = 1) -> Tensor:
    return torch.randint(1, 20, MASK.shape, generator=torch.Generator().manual_seed(seed)) * MASK


def test_gate_divergence_is_that_of_the_two_normals() -> None:
    torch.manual_seed(0)
    gates, hidden = torch.rand(2, 3).double() * LARGEST_GATE, torch.randn(2, 3, 4).double()
    mean, deviation = torch.randn(4).double(), torch.rand(4).double() + 0.3
    share = gates.unsqueeze(-1)
    passed = Normal(share * hidden + (1 - share) * mean, (1 - share) * deviation)
    expected = kl_divergence(Independent(passed, 1), Independent(Normal(mean, deviation).expand((2, 3, 4)), 1))
    torch.testing.assert_close(gate_divergence(gates, hidden, mean, deviation), expected)


def test_gaussian_divergence_is_that_of_the_two_normals() -> None:
    torch.manual_seed(0)
    mean, log_variance = torch.randn(2, 2, 3, 4).double()
    prior_mean, prior_log_variance = torch.randn(2, 4).double()
    passed, prior = (Normal(m, (0.5 * v).exp()) for m, v in ((mean, log_variance), (prior_mean, prior_log_variance)))
    expected = kl_divergence(passed, prior.expand((2, 3, 4))).sum(-1)
    torch.testing.assert_close(gaussian_divergence(mean, log_variance, prior_mean, prior_log_variance), expected)


def test_gate_divergence_is_the_mean_log_ratio_of_the_draws() -> None:
    torch.manual_seed(0)
    gate, many = NoiseGate(3).double(), 40_000
    gate.mean.normal_()
    gate.deviation.uniform_(0.5, 2.0)
    hidden, mask = torch.randn(1, 1, 3).double(), torch.ones(1, 1, dtype=torch.bool)
    scores = gate.score(hidden, mask)
    states, _ = gate.sample(hidden.expand(many, 1, 3), gate.score(hidden, mask).expand(many, 1), mask.expand(many, 1))
    share = open_gates(scores).item()
    passed = Normal(share * hidden[0, 0] + (1 - share) * gate.mean, (1 - share) * gate.deviation)
    ratio = (passed.log_prob(states) - Normal(gate.mean, gate.deviation).log_prob(states)).sum(-1)
    error = 4 * ratio.std().item() / many**0.5
    assert ratio.mean().item() == pytest.approx(gate.divergence(hidden, scores).item(), abs=error)
    torch.testing.assert_close(states.mean(0), gate.compressed(hidden, scores)[0], rtol=0, atol=0.05)


def test_gates_stay_below_their_bound_and_can_come_back_from_it() -> None:
    scores = torch.tensor([[-200.0, 0.0, 200.0, 8.0]], requires_grad=True)
    gates = open_gates(scores)
    assert gates.max() <= 1 - 1e-3
    divergence = gate_divergence(gates, torch.ones(1, 4, 2), torch.zeros(2), torch.ones(2))
    assert divergence.isfinite().all()
    assert divergence[0, 0] == 0
    (gradient,) = torch.autograd.grad(divergence.sum(), scores)
    assert gradient.isfinite().all()
    assert gradient[0, 3] > 0


def test_gate_attention_is_the_share_of_the_gates_also_of_tiny_ones() -> None:
    scores = torch.tensor([[0.3, -2.0, 4.0, 9.0]])
    mask = torch.tensor([[True, True, True, False]])
    gates = open_gates(scores) * mask
    torch.testing.assert_close(gate_attention(scores, mask), gates / gates.sum())
    torch.testing.assert_close(gate_attention(scores - 500, mask)[mask], torch.softmax(scores[mask], 0))


def test_moments_are_those_of_all_real_tokens_together() -> None:
    torch.manual_seed(0)
    batches = [(torch.randn(3, 6, 4) * 5 + 100, MASK), (torch.randn(3, 6, 4), MASK.flip(0))]
    moments = (torch.zeros(()), torch.zeros(4), torch.zeros(4))
    for values, mask in batches:
        moments = merged_moments(*moments, values, mask)
    everything = torch.cat([values[mask] for values, mask in batches])
    count, mean, squares = moments
    assert count == len(everything)
    torch.testing.assert_close(mean, everything.mean(0))
    torch.testing.assert_close((squares / count).sqrt(), everything.std(0, correction=0))


def test_statistics_change_between_updates_only_and_only_while_training() -> None:
    torch.manual_seed(0)
    model = BottleneckClassifier(SPEC)
    gate, before = model.compressor, model(tokens(), MASK).logits
    assert isinstance(gate, NoiseGate)
    assert torch.equal(model(tokens(), MASK).logits, before)
    hidden = model(tokens(), MASK).hidden[MASK]
    model.eval()(tokens(2), MASK)
    gate.update_statistics()
    torch.testing.assert_close(gate.mean, hidden.mean(0))
    torch.testing.assert_close(gate.deviation, hidden.std(0, correction=0))
    gate.update_statistics()
    torch.testing.assert_close(gate.mean, hidden.mean(0))


def test_attention_and_prediction_are_the_compressors(model: BottleneckClassifier) -> None:
    output = model(tokens(), MASK)
    compressor = model.compressor
    states = compressor.compressed(output.hidden, output.scores)
    torch.testing.assert_close(output.attention, compressor.attention(output.scores, MASK))
    torch.testing.assert_close(output.attention.sum(-1), torch.ones(3))
    assert not output.attention[~MASK].any()
    context = (output.attention.unsqueeze(-1) * states).sum(1)
    torch.testing.assert_close(output.context, context)
    torch.testing.assert_close(output.logits, model.classifier(context))
    assert torch.equal(model.attend(output.hidden, output.scores, MASK).logits, output.logits)
    assert torch.equal(model.eval()(tokens(), MASK).logits, output.logits)


def test_noise_is_around_the_clean_prediction(model: BottleneckClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    output = model(tokens(), MASK)
    assert not torch.equal(model.noisy_logits(output.hidden, MASK), output.logits)
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    torch.testing.assert_close(model.noisy_logits(output.hidden, MASK), output.logits)


def test_padding_changes_nothing(model: BottleneckClassifier) -> None:
    output = model(tokens(), MASK)
    longer = torch.nn.functional.pad(MASK, (0, 3))
    padded = model(torch.nn.functional.pad(tokens(), (0, 3)), longer)
    torch.testing.assert_close(padded.logits, output.logits)
    torch.testing.assert_close(padded.attention[:, :6], output.attention)
    divergences = [model.compressor.divergence(each.hidden, each.scores) for each in (output, padded)]
    torch.testing.assert_close(divergences[1][:, :6][MASK], divergences[0][MASK])


def test_learner_is_the_classifier_without_the_bottleneck(model: BottleneckClassifier) -> None:
    output = model(tokens(), MASK)
    weights = model.normalizer(model.scorer(output.hidden, MASK), MASK)
    learner = model.learner(output.hidden, MASK)
    torch.testing.assert_close(learner.attention, weights)
    torch.testing.assert_close(learner.logits, model.classifier(torch.einsum("bt,btd->bd", weights, output.hidden)))


def test_a_learner_gate_begins_with_the_attention_of_the_learner() -> None:
    torch.manual_seed(0)
    model = BottleneckClassifier(SPEC, compressor=LearnerGate)
    with torch.no_grad():
        model.scorer.vector.weight.mul_(20)  # scores so far apart that gates of their own would all be open or shut
    words, gate = tokens(), model.compressor
    assert type(gate.scorer) is type(model.scorer)
    assert not torch.equal(gate.scorer.vector.weight, model.scorer.vector.weight)
    gate.begin(model.scorer)
    output, learner = model(words, MASK), model.learner(model.encode(model.embed(words), MASK), MASK)
    for row, n in enumerate(MASK.sum(1).tolist()):
        scores = learner.scores[row, :n]
        gates = torch.sigmoid(3 + scores - scores.max())
        torch.testing.assert_close(output.attention[row, :n], gates / gates.sum())
    model.scorer.vector.weight.data.zero_()
    assert gate.scorer.vector.weight.any(), "a copy, which goes its own way"


def test_prior_is_learned_on_request_only() -> None:
    for learnable in (False, True):
        compressor = GaussianBottleneck(4, learnable_prior=learnable)
        assert compressor.prior_mean.requires_grad == learnable
        assert compressor.prior_log_variance.requires_grad == learnable


def test_gaussian_bottleneck_starts_at_the_states_it_was_given() -> None:
    hidden = torch.randn(2, 3, 4)
    compressor: Compressor = GaussianBottleneck(4)
    assert torch.equal(compressor.compressed(hidden, torch.zeros(2, 3)), hidden)


def test_importances_and_score_perturbations_work_on_it(model: BottleneckClassifier) -> None:
    batch = Batch(tokens(), MASK, torch.tensor([0, 1, 2]), torch.arange(3))
    output, found = importances(model, batch, ("gradient", "gradient_full", "hidden"))
    assert all((values[MASK] > 0).all() and not values[~MASK].any() for values in found.values())
    assert torch.equal(output.attention, model.eval()(batch.tokens, MASK).attention)
    step = TrainStep(
        model.train(),
        batch,
        model(batch.tokens, MASK),
        lambda logits, labels: torch.nn.functional.cross_entropy(logits, labels, reduction="none"),
        progress=0.0,
    )
    term = AttentionIVAT(epsilon=1.0).loss(step)
    assert term.value > 0
    assert term.logs["radius"] == pytest.approx(1.0)
