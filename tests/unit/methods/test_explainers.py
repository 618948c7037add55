"""L2X and VIBI: their objectives against loops, the teacher, the remedies beside them, and what a training measures."""

import itertools
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import Average
from attn_lightning.backbone.normalizers import Softmax, TopK
from attn_lightning.backbone.word_selector import WordSelector
from attn_lightning.data import Planted, RandomEmbeddings
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods import L2X, VIBI, InstanceWeighting, Method, RandomAttentionPretraining
from attn_lightning.methods.explainers import Teacher
from attn_lightning.module import AttentionModule
from attn_lightning.testing import check_method
from attn_lightning.testing.contract import objective
from attn_lightning.testing.small import SPEC, small_batch, small_model, small_step
from attn_lightning.testing.training import train
from attn_lightning.types import Batch
from support.training import fit, planted

K = 2


def explainer(cls: type[L2X] = L2X, **options: Any) -> L2X:
    """With a teacher that is a model of another class."""
    method = cls(**options)
    method.teacher = Teacher(small_model(AttentionClassifier).eval())
    return method


def selector() -> WordSelector:
    torch.manual_seed(2)
    model = WordSelector(SPEC, encoder=partial(Average, hidden_size=5), normalizer=partial(TopK, K)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of the small texts that `check_method` trains on."""
    path = tmp_path_factory.mktemp("teacher") / "base.ckpt"
    train(L2X(weight=0.0), path.parent)[1].save_checkpoint(path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("cls", [L2X, VIBI])
def test_it_keeps_the_contract(cls: type[L2X], base: Path) -> None:
    check_method(partial(explainer, cls), {"teacher_checkpoint": base})


def looped(model: WordSelector, teacher: AttentionClassifier, batch: Batch, beta: float) -> Tensor:
    """The objective text by text and word by word, with the gradient of softmax for that of the choice."""
    total = torch.zeros((), dtype=torch.float64)
    for row, n in enumerate(batch.mask.sum(1).tolist()):
        words = batch.tokens[row, :n]
        vectors = [model.embedding.weight[word] for word in words]
        states = [torch.tanh(model.encoder.projection.weight @ x + model.encoder.projection.bias) for x in vectors]
        scorer = model.scorer
        scores = [
            scorer.vector.weight[0] @ torch.tanh(scorer.projection.weight @ h + scorer.projection.bias) for h in states
        ]
        weights = torch.stack(scores).softmax(0)
        chosen = sorted(range(n), key=lambda t: -scores[t].item())[:K]
        mean = sum(
            (weights[t] - weights[t].detach() + (1 / len(chosen) if t in chosen else 0)) * vectors[t] for t in range(n)
        )
        student = model.classifier
        hidden = torch.clamp(student.hidden.weight @ mean + student.hidden.bias, min=0)
        g = (student.output.weight @ hidden + student.output.bias).softmax(0)
        f = teacher(words[None], torch.ones(1, n, dtype=torch.bool)).logits[0].softmax(0).tolist()
        total = total - sum(p * torch.log(q) for p, q in zip(f, g, strict=True))
        subsets = [sum(scores[t] for t in subset) for subset in itertools.combinations(range(n), min(K, n))]
        q = torch.stack(subsets).softmax(0)
        total = total + beta * sum(p * (torch.log(p) + math.log(len(q))) for p in q)
    return total / len(batch.mask)


@pytest.mark.parametrize(("cls", "options"), [(L2X, {}), (VIBI, {"beta": 0.7}), (VIBI, {"beta": 0.0})])
def test_objective_and_gradients_equal_a_loop_over_texts(cls: type[L2X], options: dict[str, float]) -> None:
    method, model, batch = explainer(cls, weight=0.5, **options), selector(), small_batch()
    assert method.teacher is not None
    teacher = method.teacher.model.double()
    found = objective(method, small_step(model, batch))
    expected = 0.5 * looped(model, teacher, batch, options.get("beta", 0.0))  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-7)
    gradients = [torch.autograd.grad(value, list(model.parameters())) for value in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)
    assert not any(parameter.grad is not None for parameter in teacher.parameters())


def test_labels_play_no_part_and_the_teachers_decisions_are_the_targets() -> None:
    method, model, batch = explainer(), selector().float(), small_batch()
    step = small_step(model, batch)
    other = small_step(model, batch._replace(labels=(batch.labels + 1) % 3), step.output)
    assert torch.equal(objective(method, step), objective(method, other))
    assert method.teacher is not None
    decisions = method.teacher.logits(batch.tokens, batch.mask).argmax(-1)
    assert torch.equal(step.targets, decisions)
    weighting = InstanceWeighting()
    weighting.example_weights(step)
    assert weighting._seen[0][1].tolist() == decisions.tolist()


class Moved(L2X):
    """Notes which parts of the model an epoch changed."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.parts: list[set[str]] = []

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.before = {name: value.clone() for name, value in pl_module.backbone.state_dict().items()}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        after = pl_module.backbone.state_dict()
        self.parts.append({n.split(".")[0] for n, value in self.before.items() if not torch.equal(value, after[n])})
        self.before = {}


def fitted(folder: Path, *methods: Method, backbone: Any = WordSelector, **options: Any) -> Any:
    data: Planted = planted(embeddings=RandomEmbeddings(8), cache=folder / "cache")
    module = AttentionModule(backbone, num_probe_examples=0)
    trainer = fit(module, data, *methods, use_distributed_sampler=False, **options)
    return trainer, module, data


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "best.ckpt"
    fitted(path.parent, backbone=AttentionClassifier)[0].save_checkpoint(path)
    return path


@pytest.mark.parametrize("rate", [0.0, pytest.param(0.5, marks=pytest.mark.slow)])
def test_the_student_learns_first_and_then_stands_still(rate: float, teacher: Path) -> None:
    method = Moved(teacher_checkpoint=teacher)
    remedies = [
        RandomAttentionPretraining(num_pretraining_epochs=1, classifier_rate=rate),
        InstanceWeighting(num_folds=2),
    ]
    trainer, module, data = fitted(teacher.parent, method, *remedies, max_epochs=2)
    assert method.parts == [{"embedding", "classifier"}, {"encoder", "scorer", *(method.parts[0] if rate else ())}]
    groups = [group for group in trainer.optimizers[0].param_groups if group.get("is_classifier")]
    assert [group["lr"] for group in groups] == ([0.0005, 0.0005] if rate else [])
    expected = {f"val/{name}_mean" for name in ("teacher_agreement", "post_hoc_accuracy", "evidence_recall")}
    assert expected <= trainer.callback_metrics.keys()
    assert method.teacher is None
    trainer.test(module, data, verbose=False)
    (model, other) = module.backbone.eval(), AttentionModule.load_from_checkpoint(teacher).backbone
    assert other is not None
    agrees, found = [], []
    for batch in data.test_dataloader():
        own, theirs = model(batch.tokens, batch.mask), other.eval()(batch.tokens, batch.mask)
        for row, n in enumerate(batch.mask.sum(1).tolist()):
            words = [t for t in range(n) if own.attention[row, t] > 0]
            alone = other(batch.tokens[row, words][None], torch.ones(1, len(words), dtype=torch.bool))
            agrees.append(float(alone.logits.argmax() == theirs.logits[row].argmax()))
            marked = batch.rationale[row].nonzero().flatten().tolist()
            found.append(len({*words} & {*marked}) / len(marked))
    assert trainer.callback_metrics["test/post_hoc_accuracy_mean"].item() == pytest.approx(sum(agrees) / len(agrees))
    assert trainer.callback_metrics["test/evidence_recall_mean"].item() == pytest.approx(sum(found) / len(found))


class Plain(AttentionClassifier):
    """A model of a user's own, which has no normalizer under that name."""

    def __init__(self, spec: Any) -> None:
        super().__init__(spec)
        del self.normalizer

    def attention_parameters(self) -> Any:
        return self.scorer.parameters()


def test_soft_attention_and_a_missing_teacher_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="selects k words for L2X, but got Softmax"):
        fitted(tmp_path, L2X(), backbone=partial(WordSelector, normalizer=Softmax))
    with pytest.raises(ConfigurationError, match="Expected a WordSelector for L2X, but got a Plain"):
        fitted(tmp_path, L2X(), backbone=Plain)
    with pytest.raises(ConfigurationError, match="`teacher_checkpoint` of VIBI"):
        fitted(tmp_path, VIBI())
    with pytest.raises(ConfigurationError, match="train by a Trainer"):
        objective(L2X(), small_step(selector().float(), small_batch()))


def test_bad_options_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="`beta` of VIBI"):
        VIBI(beta=-1.0)


@pytest.mark.parametrize("cls", [L2X, VIBI])
def test_the_teacher_that_is_given_is_the_one_that_is_used(cls: type[L2X], tmp_path: Path) -> None:
    assert cls(teacher_checkpoint=tmp_path).models == {"teacher_checkpoint": tmp_path / "checkpoints" / "best.ckpt"}


def test_what_was_measured_is_logged_as_that_of_all_processes() -> None:
    """On several of them a value that only one process knows would stop the others, which wait for it."""
    method, found = explainer(), []
    assert method.teacher is not None
    method.teacher.results = lambda split: {"teacher_agreement_mean": torch.tensor(0.5)}  # type: ignore[method-assign]
    module: Any = SimpleNamespace(log_dict=lambda values, **options: found.append((set(values), options)))
    trainer: Any = None
    method.on_validation_epoch_end(trainer, module)
    method.on_test_epoch_end(trainer, module)
    options = {"sync_dist": True, "reduce_fx": "max"}
    assert found == [({f"{split}/teacher_agreement_mean"}, options) for split in ("val", "test")]
