"""The contract of methods on a pretrained encoder and on pairs of texts, and what is refused there, with the reason."""

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

import attn_lightning.methods
from attn_lightning.backbone.bottleneck import BottleneckClassifier
from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.pretrained import Pretrained
from attn_lightning.data.batching import with_second
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods.adversary import ModelConsistentAdversary
from attn_lightning.methods.base import Method
from attn_lightning.methods.combined import Combined, Scheduled
from attn_lightning.methods.requirements import check_requirements
from attn_lightning.testing import contract
from attn_lightning.testing.small import SPEC, small_batch
from attn_lightning.types import Batch, DataSpec
from support.tiny_bert import make_tiny_bert

# They need the extra `transformers`, which makes every import of Lightning slower: not for the fast suite.
pytestmark = pytest.mark.slow

WORDS = ("<pad>", "<unk>", *(f"{letter}{end}" for letter in "abcdefghijklmn" for end in ("", "x")))
LETTERS = replace(SPEC, vocabulary=WORDS)

METHODS = sorted(
    (
        cls
        for name in attn_lightning.methods.__all__
        if isinstance(cls := getattr(attn_lightning.methods, name), type)
        and issubclass(cls, Method)
        and cls not in (Method, Combined, Scheduled)
    ),
    key=lambda cls: cls.__name__,
)

REFUSED = {
    **dict.fromkeys(
        itertools.product(("pretrained", "joint"), ("WordIAT", "WordIVAT")),
        "one vector per word is needed to point to its neighbors, and a word has several pieces",
    ),
    **dict.fromkeys(
        itertools.product(("pretrained", "joint", "pairs", "answers"), ("L2X", "VIBI")),
        "their student sees the vectors of single words",
    ),
    **dict.fromkeys(
        itertools.product(("joint", "pairs", "answers"), ("InformationBottleneck",)),
        "its compressor reads one text: the noisy states would hold the second one too",
    ),
}
"""What does not go together, and why. `TopK`, `Uniform` and so on are the business of normalizers, not of these."""

Kinds = dict[str, Callable[[], AttentionClassifier]]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Kinds:
    folder: Path = make_tiny_bert(tmp_path_factory.mktemp("bert"))
    encoder = partial(Pretrained, name=str(folder))
    both = replace(LETTERS, has_question=True, has_candidates=True)

    def pretrained(kind: type[AttentionClassifier] = AttentionClassifier) -> AttentionClassifier:
        return strong(kind(LETTERS, encoder=encoder))

    return {
        "pretrained": pretrained,
        "pretrained_bottleneck": partial(pretrained, BottleneckClassifier),
        "joint": lambda: strong(AttentionClassifier(both, encoder=encoder, reading="joint")),
        "pairs": lambda: strong(AttentionClassifier(replace(SPEC, has_question=True))),
        "answers": lambda: strong(AttentionClassifier(replace(SPEC, has_question=True, has_candidates=True))),
    }


def strong(model: AttentionClassifier) -> AttentionClassifier:
    """A head so strong that a perturbation of length 1 matters."""
    with torch.no_grad():
        for part in (model.scorer, model.classifier):
            for parameter in part.parameters():
                parameter.mul_(3.0)
    return model


def pair_batch(size: int = 4, length: int = 6, seed: int = 1) -> Batch:
    second = np.random.default_rng(seed).integers(2, SPEC.vocabulary_size, (size, 3))
    return with_second(small_batch(size, length, seed), second)


def answer_batch(size: int = 4, length: int = 6, seed: int = 1) -> Batch:
    """Pairs of which one class, never the right one, is no candidate."""
    batch, classes = pair_batch(size, length, seed), np.arange(SPEC.num_classes)
    wrong = (batch.labels.numpy()[:, None] + 1) % SPEC.num_classes
    return with_second(batch, np.zeros((size, 0), np.int64), np.where(classes == wrong, 0, 2 + classes))


def adversary_of(model: AttentionClassifier, **options: float) -> Method:
    method = ModelConsistentAdversary(**options)  # type: ignore[arg-type]
    method.base = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in method.base.classifier.parameters():  # type: ignore[union-attr]
            parameter.mul_(0.5)
    return method


def test_every_refusal_is_about_a_method_that_there_is() -> None:
    assert {name for _, name in REFUSED} <= {cls.__name__ for cls in METHODS}


def refused(kind: str, method: Method, kinds: Kinds) -> None:
    """What a training does before its first step."""
    spec = replace(SPEC, has_question=True)
    model = kinds[kind]() if method.requires_backbone is not BottleneckClassifier else BottleneckClassifier(spec)
    check_requirements(method, model)
    module = SimpleNamespace(backbone=model)
    method.on_fit_start(cast(Trainer, None), cast(LightningModule, module))


@pytest.mark.parametrize("kind", ["pretrained", "joint", "pairs", "answers"])
@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
def test_a_method_keeps_its_contract(
    cls: type[Method], kind: str, kinds: Kinds, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    if (kind, cls.__name__) in REFUSED:
        with pytest.raises(ConfigurationError):
            refused(kind, cls(), kinds)
        return
    bottleneck = cls.requires_backbone is BottleneckClassifier
    model = kinds["pretrained_bottleneck" if bottleneck else kind]()
    if kind != "pretrained":
        monkeypatch.setattr(contract, "small_batch", pair_batch if kind == "pairs" else answer_batch)
    make = partial(adversary_of, model) if cls is ModelConsistentAdversary else cls
    check_requirements(make(), model)
    checks = [contract.check_weight_zero]
    if cls.loss is not Method.loss:
        checks += [contract.check_term, contract.check_nothing_is_left, contract.check_padding_and_order]
    for check in checks:
        check(make, model)


def test_data_of_pairs_needs_a_scorer_and_a_classifier_that_read_both(kinds: Kinds) -> None:
    spec: DataSpec = replace(LETTERS, has_question=True)
    encoder = kinds["pretrained"]().encoder
    assert isinstance(encoder, Pretrained)
    with pytest.raises(ConfigurationError, match="shared"):
        AttentionClassifier(spec, partial(Pretrained, name=encoder.name), reading="own")
