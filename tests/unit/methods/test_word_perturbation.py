"""Word-level directions against plain loops and dense cosines; neighbors, memory, frozen vectors, encoder passes."""

import pickle
from functools import partial

import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import Average, BiLSTM
from attn_lightning.backbone.normalizers import Uniform
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods import Method, WordAT, WordIAT, WordIVAT, WordRP, WordVAT
from attn_lightning.methods.requirements import check_requirements
from attn_lightning.perturbation import neighbors
from attn_lightning.perturbation.neighbors import NeighborCache, nearest_words, toward_neighbors, word_table
from attn_lightning.perturbation.objectives import label_trials, perturb_embeddings
from attn_lightning.step import TrainStep
from attn_lightning.types import Batch, DataSpec

B, T, E, V = 4, 6, 5, 40
LENGTHS = torch.tensor([6, 3, 1, 4])
MASK = torch.arange(T) < LENGTHS[:, None]
EVERY = [WordRP, WordAT, WordIAT, WordVAT, WordIVAT]
per_example = partial(F.cross_entropy, reduction="none")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def make_model(**options: object) -> AttentionClassifier:
    model = AttentionClassifier(DataSpec(2, V, E, ("a", "b")), **{"encoder": partial(BiLSTM, hidden_size=3), **options})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return model


def make_step(model: Backbone) -> TrainStep:
    tokens = torch.randint(2, V, (B, T)) * MASK
    batch = Batch(tokens, MASK, torch.tensor([0, 1, 1, 0]), torch.arange(B))
    return TrainStep(model, batch, model(tokens, MASK), per_example, 0.0)


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
    step = make_step(make_model(freeze_embeddings=frozen))
    noise = noise_used(cls(epsilon=2.5), step, monkeypatch)
    torch.testing.assert_close(noise.flatten(1).norm(dim=1), torch.full((B,), 2.5))
    assert (noise[~MASK] == 0).all()


@pytest.mark.parametrize("cls", EVERY)
def test_logged_radius_is_epsilon_and_uniform_attention_is_admitted(cls: type[Method]) -> None:
    model = make_model(normalizer=Uniform)
    check_requirements(cls(), model)
    assert cls(epsilon=0.3).loss(make_step(model)).logs["radius"].item() == pytest.approx(0.3, rel=1e-5)


@pytest.mark.parametrize("frozen", [False, True])
def test_adversarial_direction_equals_central_differences(frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(freeze_embeddings=frozen).double()
    step = make_step(model)
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
    model = make_model().double()
    step = make_step(model)
    found = noise_used(WordIAT(epsilon=0.7, num_neighbors=3), step, monkeypatch)
    for row, n in enumerate(LENGTHS.tolist()):
        expected = 0.7 * literal_toward_neighbors(step, model.embedding.weight.detach(), 3, row)
        torch.testing.assert_close(found[row, :n], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("xi", [1e-2, 1e-1])
def test_virtual_direction_follows_the_divergence(xi: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Along the direction the prediction changes more than along the random start, for the free and the restricted."""
    model = make_model()
    step = make_step(model)
    random = WordVAT(epsilon=0.1, xi=xi).loss(step)
    monkeypatch.setattr("attn_lightning.methods.word_perturbation.virtual_perturbation", _only_the_start)
    torch.manual_seed(0)
    assert random.value > WordVAT(epsilon=0.1, xi=xi).loss(step).value


def _only_the_start(trial: object, epsilon: float, steer: object, start: Tensor, *_: object) -> Tensor:
    start = start * MASK[..., None]
    return epsilon * start / start.flatten(1).norm(dim=1)[:, None, None]


@pytest.mark.parametrize("chunk", [7, 8192])
def test_nearest_words_equal_dense_cosines(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "CHUNK", chunk)
    monkeypatch.setattr(neighbors, "QUERIES", 5)
    table = torch.randn(V, E, dtype=torch.float64) * torch.rand(V, 1, dtype=torch.float64) * 10
    table[0] = 0.0
    cosine = torch.from_numpy(cosine_similarity(table.numpy()))
    cosine[:, :2] = -2.0
    cosine.fill_diagonal_(-2.0)
    words = torch.tensor([30, 2, 39, 1, 7, 8, 9])
    assert torch.equal(nearest_words(words, table, 4), cosine[words].argsort(1, descending=True)[:, :4])
    every = nearest_words(words[:3], table, V - 3)
    assert all(
        sorted(row.tolist()) == [w for w in range(2, V) if w != word]
        for row, word in zip(every, words[:3], strict=True)
    )


class LargestTensor(TorchDispatchMode):
    """Numbers of the largest tensor that any operation returns."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, Tensor) and value.untyped_storage().data_ptr() != self.table:
                self.size = max(self.size, value.numel())
        return result

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = table.untyped_storage().data_ptr()


def test_memory_is_bounded_by_the_chunk_at_a_vocabulary_of_200_000(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "QUERIES", 16)
    table = torch.randn(200_000, 2)
    with LargestTensor(table) as largest:
        found = nearest_words(torch.arange(2, 50), table, 10)
    assert found.shape == (48, 10)
    # One number per word for its norm, and one chunk of similarities; all of them would be 9.6 million.
    assert largest.size <= max(16 * neighbors.CHUNK, 200_000)


def test_cache_searches_for_a_word_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, search = [], nearest_words
    monkeypatch.setattr(neighbors, "nearest_words", lambda words, *args: asked.append(words) or search(words, *args))
    table = torch.randn(V, E)
    cache = NeighborCache(table, 3)
    first = cache.look_up(torch.tensor([5, 9, 5]), table)
    cache.look_up(torch.tensor([9, 5]), table)
    second = cache.look_up(torch.tensor([11, 9]), table)
    assert [words.tolist() for words in asked] == [[5, 9], [11]]
    assert torch.equal(first[1], second[1])
    assert torch.equal(first[0], first[2])


def test_neighbors_are_found_anew_every_epoch_and_kept_out_of_pickles() -> None:
    model = make_model()
    method, step = WordIAT(), make_step(model)
    method.loss(step)
    assert method._neighbors is not None
    assert pickle.loads(pickle.dumps(method))._neighbors is None
    assert method.state_dict() == {}
    method.on_train_epoch_start(None, None)  # type: ignore[arg-type]
    assert method._neighbors is None


def test_small_vocabulary_gives_all_it_has_and_none_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    table = torch.randn(6, E)
    assert NeighborCache(table, 10).look_up(torch.tensor([2, 3]), table).shape == (2, 3)
    assert "3 neighbors, not 10" in caplog.text
    with pytest.raises(ConfigurationError, match="at least two words"):
        NeighborCache(table[:3], 10)


@pytest.mark.parametrize("numbers", [1, 3 * E, 2**19])
def test_directions_in_pieces_equal_all_of_them_at_once(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "DIFFERENCES", numbers)
    table, words = torch.randn(V, E), torch.randint(2, V, (B, T)) * MASK
    table[5] = table[words[0, 0]]  # no direction leads to a word at the same place
    near = torch.cat([nearest_words(words[MASK], table, 3), torch.full((int(MASK.sum()), 1), 5)], dim=1)
    gradient = torch.randn(B, T, E)
    differences = table[near] - table[words[MASK]].unsqueeze(1)
    lengths = differences.norm(dim=2, keepdim=True)
    directions = torch.where(lengths > 0, differences / lengths, 0.0)
    slopes = (directions * gradient[MASK].unsqueeze(1)).sum(2)
    expected = ((slopes / slopes.norm(dim=1, keepdim=True)).unsqueeze(2) * directions).sum(1)
    steer = toward_neighbors(words, MASK, near, table)
    with LargestTensor(table) as largest:
        moved = steer(gradient)
    torch.testing.assert_close(moved[MASK], expected, rtol=1e-6, atol=1e-6)
    assert (moved[~MASK] == 0).all()
    # The result, or one piece: of one token at least.
    assert largest.size <= max(B * T * E, numbers, near.shape[1] * E)


def test_words_without_gradient_and_padding_are_not_moved() -> None:
    table, words = torch.randn(V, E), torch.randint(2, V, (B, T)) * MASK
    steer = toward_neighbors(words, MASK, nearest_words(words[MASK], table, 3), table)
    gradient = torch.randn(B, T, E)
    gradient[0, 1] = 0.0
    moved = steer(gradient)
    assert (moved[0, 1] == 0).all()
    assert (moved[~MASK] == 0).all()
    assert (moved[0, 0] != 0).all()


def test_a_model_without_word_vectors_is_refused() -> None:
    class Bare(Backbone):
        pass

    with pytest.raises(ConfigurationError, match=r"one `nn\.Embedding`"):
        word_table(Bare())
    model = make_model()
    assert word_table(model) is model.embedding.weight


def test_clean_pass_gives_the_gradient_and_frozen_vectors_take_a_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    for frozen, passes in ((False, 1), (True, 2)):
        step, calls = make_step(make_model(freeze_embeddings=frozen)), []
        encode = step.model.encode
        monkeypatch.setattr(step.model, "encode", lambda *args, e=encode, c=calls: c.append(1) or e(*args))
        WordAT().loss(step)
        assert len(calls) == passes


def test_probes_take_the_parameters_as_constants_and_give_their_flags_back() -> None:
    model = make_model()
    model.classifier.bias.requires_grad_(False)
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    step = make_step(model)
    site = perturb_embeddings(model, step.output)
    noise = site.noiseless.clone().requires_grad_()
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(site.probe(noise).sum(), [noise, *learned], allow_unused=True)
    assert found[0].abs().sum() > 0
    assert all(gradient is None for gradient in found[1:])
    torch.testing.assert_close(site.probe(noise), site.rerun(noise))
    with pytest.raises(RuntimeError):
        site.probe(noise[:, :2])
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags


def test_padding_row_and_word_vectors_get_the_gradients_of_the_loss() -> None:
    model = make_model(encoder=Average)
    step = make_step(model)
    (gradient,) = torch.autograd.grad(WordAT().loss(step).value, model.embedding.weight)
    assert (gradient[0] == 0).all()
    assert (gradient[step.batch.tokens[0, 0]] != 0).any()


def test_no_gradient_flows_through_the_direction() -> None:
    model = make_model(encoder=Average)
    step = make_step(model)
    (trial,) = label_trials(step, perturb_embeddings)
    noise = WordAT()._perturb(trial)
    assert not noise.requires_grad
    moved = per_example(trial.site.rerun(noise), step.batch.labels).mean()
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
