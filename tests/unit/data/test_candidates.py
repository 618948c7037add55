"""Which classes can be the answer of a text: from files to batches, in prediction, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from attn_lightning.data.candidates import candidates_of, check_answers, check_known
from attn_lightning.data.datamodule import TextDataModule
from attn_lightning.data.pairs import BAbI
from attn_lightning.data.text import TextOptions, TextTokenizer
from attn_lightning.errors import ConfigurationError, DataFormatError
from support.stories import PLACES, stories


def ready(data: TextDataModule) -> TextDataModule:
    data.prepare_data()
    data.setup()
    return data


def test_the_places_of_a_story_stand_behind_the_question_in_the_order_of_the_classes(tmp_path: Path) -> None:
    data = ready(BAbI(root=stories(tmp_path), cache=tmp_path / "cache"))
    assert data.spec.has_candidates
    assert "cannot be its answer" in data.manifest["notes"][0]
    batch = data.examples("test")[list(range(24))]
    vocabulary = data.tokenizer.vocabulary
    for row in range(24):
        story = set(data.text("test", row).split())
        behind = [vocabulary[word] for word in batch.tokens[row, -6:].tolist()]
        assert behind == [place if place in story else "<pad>" for place in PLACES]
        assert behind[int(batch.labels[row])] in story
    assert not batch.mask[:, -6:].any()
    assert batch.rationale is not None
    assert not batch.rationale[:, -6:].any()
    without = ready(BAbI(root=tmp_path, cache=tmp_path / "cache", candidates=False))
    assert not without.spec.has_candidates
    assert without.examples("test")[list(range(24))].tokens.equal(batch.tokens[:, :-6])


def test_the_tokenizer_brings_the_candidates_along() -> None:
    options = TextOptions(candidates=("Yes", "no"))
    tokenizer = TextTokenizer.from_str(TextTokenizer.train(["yes no maybe"], options=options).to_str())
    encoded = tokenizer.encode_batch(["maybe YES", "no , yes", "maybe", "nothing"])
    found = candidates_of(encoded.ids, tokenizer)
    assert found is not None
    yes, no = tokenizer.candidates.tolist()
    # A text that names none leaves all of them, or no class could be its answer.
    assert found.tolist() == [[yes, 0], [yes, no], [yes, no], [yes, no]]
    plain = TextTokenizer.train(["yes no"])
    assert candidates_of(plain.encode_batch(["yes"]).ids, plain) is None
    assert "candidates" not in plain.to_str(), "states from before there were candidates are equal to those of now"


def test_a_class_that_nobody_names_and_an_answer_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"names perhaps; lower `min_count`"):
        check_known(TextTokenizer.train(["yes no"], options=TextOptions(candidates=("yes", "perhaps"))))
    with pytest.raises(DataFormatError, match=r"line 8 does not name 'no'"):
        check_answers(np.array([[3, 0], [3, 0]]), [0, 1], [7, 8], ("yes", "no"))
    stories(tmp_path)
    # Cut off before the first place: the answer is among the words that are not read.
    with pytest.raises(ConfigurationError, match=r"bathroom.*--data\.candidates=false"):
        ready(BAbI(root=tmp_path, cache=tmp_path / "cache", max_length=4, min_count=30))


@pytest.mark.slow
def test_training_records_prediction_and_evaluation_agree(tmp_path: Path, cli: Callable[..., Any]) -> None:
    root, cache = stories(tmp_path), {"ATTN_LIGHTNING_CACHE": str(tmp_path / "cache")}
    data = ("--data=BAbI", f"--data.root={root}", "--data.embeddings=RandomEmbeddings", "--data.embeddings.dimension=8")
    fitted = cli(
        "fit",
        *(*data, "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--run.report=false", "--run.control=false"),
        *("--model.backbone.encoder.hidden_size=8", "--run.suite=faithfulness,agreement", "--run.name=places"),
        f"--run.root={tmp_path}",
        **cache,
    )
    assert fitted.code == 0, fitted.err
    run = tmp_path / "places" / "version_0"
    rows = pq.read_table(run / "predictions.parquet").to_pylist()
    assert len(rows) == 24
    for row in rows:
        named = [place in row["text"].split() for place in PLACES]
        assert [p > 0 for p in row["probabilities"]] == named
        assert row["candidates"] == named
    # The checkpoint alone knows which answers there can be.
    row = rows[0]
    checkpoint = run / "checkpoints" / "best.ckpt"
    asked = [f"--ckpt_path={checkpoint}", f"--output={tmp_path}/answers.jsonl"]
    for text in (row["text"], "nobody went anywhere"):
        asked += [f"--text={text}", f"--question={row['question']}"]
    predicted = cli("predict", *asked, **cache)
    assert predicted.code == 0, predicted.err
    one, none = map(json.loads, (tmp_path / "answers.jsonl").read_text("utf-8").splitlines())
    assert list(one["probabilities"].values()) == pytest.approx(row["probabilities"], abs=1e-5)
    assert all(p > 0 for p in none["probabilities"].values())
    assert one["candidates"] == [place for place in PLACES if place in row["text"].split()]
    assert none["candidates"] == list(PLACES)
    # Other data is read with the list of the model, whether it has one of its own or not.
    for name, more in (("true", ()), ("false", ("--data.candidates=false",))):
        others = stories(tmp_path / name, 12, seed=1)
        evaluated = cli(
            "evaluate",
            *(f"--ckpt_path={checkpoint}", "--data=BAbI", f"--data.root={others}", *more),
            *("--suite=faithfulness", "--explainers=attention", "--untrained=false"),
            **cache,
        )
        assert evaluated.code == 0, evaluated.err
