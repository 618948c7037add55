"""Word-level directions against plain loops and dense cosines; neighbors, memory, frozen vectors, encoder passes."""

import pickle
from typing import Any

import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity
from torch import Tensor
from torch.nn import functional as F

from attn_lightning.backbone.encoders import Average
from attn_lightning.backbone.normalizers import Uniform
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods import Method, WordAT, WordIAT, WordIVAT, WordRP, WordVAT
from attn_lightning.methods.requirements import check_requirements
from attn_lightning.perturbation import neighbors
from attn_lightning.perturbation.directions import unrestricted
from attn_lightning.perturbation.objectives import label_perturbation, label_trials
from attn_lightning.perturbation.sites import embedding_site
from attn_lightning.step import TrainStep
from support.defaults import defaults
from support.steps import per_example, random_step, recurrent_model

B, T, E, V = 4, 6, 5, 40
LENGTHS = torch.tensor([6, 3, 1, 4])
MASK = torch.arange(T) < LENGTHS[:, None]
EVERY = [WordRP, WordAT, WordIAT, WordVAT, WordIVAT]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def noise_used(method: Method, step: TrainStep, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The noise that reached the encoder in the pass of the loss, the last one."""
    seen, encode = [], step.model.encode
    monkeypatch.setattr(step.model, "encode", lambda *args: seen.append(args[0]) or encode(*args))
    method.loss(step)
    return (seen[-1] - step.output.embeddings).detach()


@pytest.mark.parametrize("cls", EVERY)
@pytest.mark.parametrize("frozen", [False, True])
def test_one_norm_per_text_and_nothing_at_padding(
    cls: type[Method], frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = random_step(recurrent_model(freeze_embeddings=frozen), MASK)
    noise = noise_used(cls(epsilon=2.5), step, monkeypatch)
    torch.testing.assert_close(noise.flatten(1).norm(dim=1), torch.full((B,), 2.5))
    assert (noise[~MASK] == 0).all()


@pytest.mark.parametrize("cls", EVERY)
def test_logged_radius_is_epsilon_and_uniform_attention_is_admitted(cls: type[Method]) -> None:
    model = recurrent_model(normalizer=Uniform)
    check_requirements(cls(), model)
    assert cls(epsilon=0.3).loss(random_step(model, MASK)).logs["radius"].item() == pytest.approx(0.3, rel=1e-5)


@pytest.mark.parametrize("frozen", [False, True])
def test_adversarial_direction_equals_central_differences(frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = recurrent_model(freeze_embeddings=frozen).double()
    step = random_step(model, MASK)
    found = noise_used(WordAT(epsilon=1.0), step, monkeypatch)
    for row, n in enumerate(LENGTHS.tolist()):
        vectors, mask = step.output.embeddings[row : row + 1, :n].detach(), MASK[row : row + 1, :n]

        def loss(
            noise: Tensor, vectors: Tensor = vectors, mask: Tensor = mask, label: Tensor = step.batch.labels[row, None]
        ) -> Tensor:
            hidden = model.encoder(vectors + noise.view(vectors.shape), mask)
            return per_example(model.attend(hidden, model.score(hidden, mask), mask).logits, label)

        basis = 1e-5 * torch.eye(n * E, dtype=torch.float64)
        with torch.no_grad():
            gradient = torch.cat([(loss(way) - loss(-way)) / 2e-5 for way in basis]).view(n, E)
        torch.testing.assert_close(found[row, :n], gradient / gradient.norm(), rtol=1e-4, atol=1e-6)


def literal_toward_neighbors(step: TrainStep, table: Tensor, count: int, row: int) -> Tensor:
    """`r(alpha)` word by word; the gradient in the space of alpha comes from autograd."""
    n = int(LENGTHS[row])
    words, vectors = step.batch.tokens[row, :n], step.output.embeddings[row, :n].detach()
    cosine = torch.from_numpy(cosine_similarity(table.numpy()))
    directions = torch.zeros(n, count, E, dtype=table.dtype)
    for t, word in enumerate(words.tolist()):
        others = sorted((w for w in range(2, V) if w != word), key=lambda w: -cosine[word, w])
        for k, other in enumerate(others[:count]):
            difference = table[other] - table[word]
            directions[t, k] = difference / difference.norm()
    alpha = torch.zeros(n, count, dtype=table.dtype, requires_grad=True)
    moved = vectors + torch.stack([sum(alpha[t, k] * directions[t, k] for k in range(count)) for t in range(n)])
    hidden = step.model.encode(moved[None], MASK[row : row + 1, :n])
    output = step.model.attend(hidden, step.model.score(hidden, MASK[row : row + 1, :n]), MASK[row : row + 1, :n])
    (gradient,) = torch.autograd.grad(F.cross_entropy(output.logits, step.batch.labels[row, None]), alpha)
    noise = torch.stack(
        [sum(gradient[t, k] / gradient[t].norm() * directions[t, k] for k in range(count)) for t in range(n)]
    )
    return noise / noise.norm()


def test_interpretable_direction_equals_the_literal_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    model = recurrent_model().double()
    step = random_step(model, MASK)
    found = noise_used(WordIAT(epsilon=0.7, num_neighbors=3), step, monkeypatch)
    for row, n in enumerate(LENGTHS.tolist()):
        expected = 0.7 * literal_toward_neighbors(step, model.embedding.weight.detach(), 3, row)
        torch.testing.assert_close(found[row, :n], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("xi", [1e-2, 1e-1])
def test_virtual_direction_follows_the_divergence(xi: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Along the direction the prediction changes more than along the random start, for the free and the restricted."""
    model = recurrent_model()
    step = random_step(model, MASK)
    random = WordVAT(epsilon=0.1, xi=xi).loss(step)
    monkeypatch.setattr("attn_lightning.methods.perturbed.virtual_perturbation", _only_the_start)
    torch.manual_seed(0)
    assert random.value > WordVAT(epsilon=0.1, xi=xi).loss(step).value


def _only_the_start(trial: object, epsilon: float, projection: object, start: Tensor, *_: object) -> Tensor:
    start = start * MASK[..., None]
    return epsilon * start / start.flatten(1).norm(dim=1)[:, None, None]


def test_neighbors_are_found_anew_every_epoch_and_kept_out_of_pickles(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked, search = recurrent_model(), [], neighbors.nearest_words
    monkeypatch.setattr(neighbors, "nearest_words", lambda words, *args: asked.append(1) or search(words, *args))
    method, step = WordIAT(), random_step(model, MASK)
    method.loss(step)
    assert len(asked) == 1
    method.loss(step)
    assert len(asked) == 1
    assert method.state_dict() == {}
    method.on_train_epoch_start(None, None)  # type: ignore[arg-type]
    method.loss(step)
    pickle.loads(pickle.dumps(method)).loss(step)
    assert len(asked) == 3


def test_clean_pass_gives_the_gradient_and_frozen_vectors_take_a_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    for frozen, passes in ((False, 1), (True, 2)):
        step, calls = random_step(recurrent_model(freeze_embeddings=frozen), MASK), []
        encode = step.model.encode
        monkeypatch.setattr(step.model, "encode", lambda *args, e=encode, c=calls: c.append(1) or e(*args))
        WordAT().loss(step)
        assert len(calls) == passes


def test_padding_row_and_word_vectors_get_the_gradients_of_the_loss() -> None:
    model = recurrent_model(encoder=Average)
    step = random_step(model, MASK)
    (gradient,) = torch.autograd.grad(WordAT().loss(step).value, model.embedding.weight)
    assert (gradient[0] == 0).all()
    assert (gradient[step.batch.tokens[0, 0]] != 0).any()


def test_no_gradient_flows_through_the_direction() -> None:
    model = recurrent_model(encoder=Average)
    step = random_step(model, MASK)
    (trial,) = label_trials(step, embedding_site)
    noise = label_perturbation(trial, WordAT().epsilon, unrestricted)
    assert not noise.requires_grad
    moved = per_example(trial.site.rerun(noise).logits, step.batch.labels).mean()
    parameters = list(model.parameters())
    wanted = torch.autograd.grad(moved, parameters, retain_graph=True)
    found = torch.autograd.grad(WordAT().loss(step).value, parameters)
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (WordRP, {"epsilon": 0.0}),
        (WordAT, {"epsilon": -1.0}),
        (WordIAT, {"epsilon": float("nan")}),
        (WordIAT, {"num_neighbors": 0}),
        (WordVAT, {"xi": 0.0}),
        (WordVAT, {"num_power_iterations": 0}),
        (WordIVAT, {"num_neighbors": -3}),
        (WordIVAT, {"epsilon": float("inf")}),
    ],
)
def test_bad_options_are_refused_by_name(cls: type[Method], options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=f"`{next(iter(options))}` of {cls.__name__}"):
        cls(**options)


@pytest.mark.parametrize("cls", [WordIAT, WordIVAT])
def test_one_neighbor_is_enough(cls: type[WordIAT | WordIVAT]) -> None:
    assert cls(num_neighbors=1).num_neighbors == 1


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (WordRP, {"weight": 1.0, "epsilon": 1.0}),
        (WordAT, {"weight": 1.0, "epsilon": 1.0}),
        (WordIAT, {"weight": 1.0, "epsilon": 1.0, "num_neighbors": 10}),
        (WordVAT, {"weight": 1.0, "epsilon": 1.0, "xi": 0.1, "num_power_iterations": 1}),
        (WordIVAT, {"weight": 1.0, "epsilon": 1.0, "xi": 0.1, "num_power_iterations": 1, "num_neighbors": 10}),
    ],
)
def test_options_that_are_left_out_are_the_documented_ones(cls: Any, expected: dict[str, Any]) -> None:
    assert defaults(cls) == expected
