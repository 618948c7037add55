"""All ten methods against plain loops written from their formulas: values and gradients, padding, class weights, pool.

The loops see one text at a time, without its padding, and use nothing of the package but the weights of the model.
"""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity
from torch import Tensor
from torch.nn import functional as F

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import Average
from attn_lightning.methods import (
    AttentionAT,
    AttentionIAT,
    AttentionIVAT,
    AttentionRP,
    AttentionVAT,
    Method,
    WordAT,
    WordIAT,
    WordIVAT,
    WordRP,
    WordVAT,
    attention_perturbation,
    word_perturbation,
)
from attn_lightning.methods.base import Differentiates
from attn_lightning.step import TrainStep
from attn_lightning.types import AttentionOutput, Batch, DataSpec

V, E, C = 14, 4, 3
CLASS_WEIGHTS = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)
LABELED, POOL = (5, 2, 3), (4, 3)
XI, EPSILON, ROUNDS, NEIGHBORS = 0.3, 0.8, 2, 3


@pytest.fixture
def model() -> AttentionClassifier:
    torch.manual_seed(0)
    model = AttentionClassifier(DataSpec(C, V, E, ("a", "b", "c")), encoder=partial(Average, hidden_size=6)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0).add_(0.1 * torch.randn_like(parameter))
        model.embedding.weight[0] = 0.0
    return model


def make_batch(lengths: tuple[int, ...], seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    tokens = torch.randint(2, V, mask.shape, generator=generator) * mask
    return Batch(tokens, mask, torch.arange(len(lengths)) % C, torch.arange(len(lengths)))


class Places:
    """One clean pass whose words, states and scores are leaves that gradients can be asked for."""

    def __init__(self, model: AttentionClassifier, batch: Batch, on_words: bool) -> None:
        self.batch = batch
        words = model.embedding(batch.tokens)
        if on_words:
            self.leaves = [words.detach().requires_grad_()]
            hidden = model.encode(self.leaves[0], batch.mask)
            output = model.attend(hidden, model.score(hidden, batch.mask), batch.mask)
            self.embeddings = self.leaves[0]
        else:
            hidden = model.encode(words, batch.mask).detach()
            self.leaves = [hidden.requires_grad_(), model.score(hidden, batch.mask).detach().requires_grad_()]
            output = model.attend(*self.leaves, batch.mask)
            self.embeddings = words.detach()
        self.output = AttentionOutput(**{**vars(output), "embeddings": self.embeddings})


def classified(model: AttentionClassifier, states: Tensor, scores: Tensor) -> Tensor:
    """`W sum_t softmax(s)_t h_t + b` of one text."""
    exponentials = [torch.exp(score) for score in scores]
    context = sum(e / sum(exponentials) * state for e, state in zip(exponentials, states, strict=True))
    return model.classifier.weight @ context + model.classifier.bias


def through_the_model(model: AttentionClassifier, words: Tensor) -> Tensor:
    """The whole model on the word vectors of one text."""
    (linear,) = (module for module in model.encoder.modules() if isinstance(module, torch.nn.Linear))
    states = torch.stack([torch.tanh(linear.weight @ word + linear.bias) for word in words])
    projection, query = model.scorer.projection, model.scorer.vector.weight[0]
    scores = torch.stack([query @ torch.tanh(projection.weight @ state + projection.bias) for state in states])
    return classified(model, states, scores)


def length(vector: Tensor) -> Tensor:
    return torch.sqrt(sum(entry**2 for entry in vector.flatten()))


def scaled(vector: Tensor) -> Tensor:
    return vector / length(vector)


def score_differences(scores: Tensor) -> Tensor:
    """(n, n) `d~_{t,k}` with all differences of the sentence as one vector of length 1."""
    return scaled(torch.stack([torch.stack([other - own for other in scores]) for own in scores]))


def along_score_differences(gradient: Tensor, scores: Tensor) -> Tensor:
    """`r_t = sum_k alpha_{t,k} d~_{t,k}` with alpha along `g_t d~_{t,k}`."""
    d = score_differences(scores)
    alpha = torch.stack([torch.stack([g * entry for entry in row]) for g, row in zip(gradient, d, strict=True)])
    return torch.stack([sum(a * entry for a, entry in zip(*rows, strict=True)) for rows in zip(alpha, d, strict=True)])


def along_neighbors(gradient: Tensor, words: list[int], table: Tensor) -> Tensor:
    """`r_t = sum_k alpha_{t,k} d_{t,k}`, alpha of length 1 per word."""
    cosine, moved = cosine_similarity(table.numpy()), []
    for word, g in zip(words, gradient, strict=True):
        near = sorted((w for w in range(2, V) if w != word), key=lambda w, word=word: -cosine[word, w])[:NEIGHBORS]
        d = [scaled(table[w] - table[word]) for w in near]
        alpha = scaled(torch.stack([g @ way for way in d]))
        moved.append(sum(a * way for a, way in zip(alpha, d, strict=True)))
    return torch.stack(moved)


def reference(cls: type[Method], model: AttentionClassifier, parts: list[Places], draws: list[Tensor]) -> Tensor:
    """The term of a method, text by text."""
    name, on_words = cls.__name__, cls.__name__.startswith("Word")
    virtual, random, interpretable = "VAT" in name, name.endswith("RP"), name.endswith(("IAT", "IVAT"))
    values = []
    for part, noise in zip(parts if virtual else parts[:1], draws, strict=False):
        for row, label in enumerate(part.batch.labels.tolist()):
            n = int(part.batch.mask[row].sum())
            here, words = [leaf[row, :n] for leaf in part.leaves], part.batch.tokens[row, :n]

            def logits(r: Tensor, here: list[Tensor] = here) -> Tensor:
                if on_words:
                    return through_the_model(model, here[0] + r)
                return classified(model, here[0], here[1] + r)

            clean = torch.softmax(logits(torch.zeros_like(here[-1])), 0).detach()

            def objective(r: Tensor, clean: Tensor = clean, label: int = label, logits: Callable = logits) -> Tensor:
                log_q = torch.log_softmax(logits(r), 0)
                if virtual:
                    return sum(p * (p.log() - log) for p, log in zip(clean, log_q, strict=True))
                return -CLASS_WEIGHTS[label] * log_q[label]

            def project(g: Tensor, here: list[Tensor] = here, words: Tensor = words) -> Tensor:
                if not interpretable:
                    return g
                if on_words:
                    return along_neighbors(g, words.tolist(), model.embedding.weight.detach())
                return along_score_differences(g, here[1].detach())

            def gradient(at: Tensor, objective: Callable = objective) -> Tensor:
                at = at.detach().requires_grad_()
                return torch.autograd.grad(objective(at), at)[0]

            if random:
                r = EPSILON * scaled(noise[row, :n])
            elif not virtual:
                r = EPSILON * scaled(project(gradient(torch.zeros_like(here[-1]))))
            else:
                d = scaled(project(noise[row, :n]))
                for _ in range(ROUNDS):
                    d = scaled(project(gradient(XI * d)))
                r = EPSILON * d
            values.append(objective(r.detach()))
    return sum(values) / len(values)


EVERY = [
    AttentionRP, AttentionAT, AttentionIAT, AttentionVAT, AttentionIVAT, WordRP, WordAT, WordIAT, WordVAT, WordIVAT,
]  # fmt: skip


def test_every_method_of_the_family_is_compared() -> None:
    modules = (attention_perturbation, word_perturbation)
    named = {value for module in modules for value in vars(module).values() if getattr(value, "term", None)}
    assert {cls for cls in named if not cls.__name__.startswith("_")} == set(EVERY)


@pytest.mark.parametrize("cls", EVERY)
def test_value_and_gradients_equal_a_loop_over_texts(cls: type[Method], model: AttentionClassifier) -> None:
    on_words = cls.differentiates == Differentiates.EMBEDDINGS
    parts = [Places(model, make_batch(lengths, seed), on_words) for seed, lengths in enumerate((LABELED, POOL))]
    step = TrainStep(
        model,
        parts[0].batch,
        parts[0].output,
        partial(F.cross_entropy, weight=CLASS_WEIGHTS, reduction="none"),
        progress=0.0,
        unlabeled=parts[1].batch._replace(labels=torch.full((len(POOL),), -1)),
        unlabeled_output=parts[1].output,
    )
    options = {"epsilon": EPSILON}
    if "VAT" in cls.__name__:
        options |= {"xi": XI, "num_power_iterations": ROUNDS}
    if cls in (WordIAT, WordIVAT):
        options |= {"num_neighbors": NEIGHBORS}
    torch.manual_seed(3)
    draws = [torch.randn(part.leaves[-1].shape, dtype=torch.float64) for part in parts]
    expected = reference(cls, model, parts, draws)
    torch.manual_seed(3)
    term = cls(weight=0.7, **options).loss(step)
    assert term.weight == 0.7
    torch.testing.assert_close(term.value, expected)
    places = [leaf for part in parts for leaf in part.leaves] + list(model.classifier.parameters())
    wanted = torch.autograd.grad(expected, places, allow_unused=True, materialize_grads=True)
    found = torch.autograd.grad(term.value, places, allow_unused=True, materialize_grads=True)
    assert all(gradient.abs().sum() > 0 for gradient in wanted[: len(parts[0].leaves)])
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-9)
