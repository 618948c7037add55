"""Marks of words stay with their words, whatever is cut off or dropped."""

import pytest

from attn_lightning.data.corpora import TextFiles


@pytest.mark.parametrize("unknown", ["token", "drop"])
def test_rationales_stay_with_their_words(files, tmp_path, unknown, write, prepared):
    def marked(words, marks):
        return {"words": words, "label": marks is None, "why": marks}

    train = [marked(["a", "b", "c"], [0, 1, 0]), marked(["c", "b", "a"], None)] * 10
    test = [marked(["x", "b", "a", "c"], [1, 1, 0, 1]), marked(["y"], None)]
    write(files["train"], train)
    write(files["test"], test)
    columns = {"tokens_column": "words", "rationale_column": "why"}
    module = prepared(TextFiles(**files, **columns, unknown=unknown, max_length=3))
    (batch,) = module.test_dataloader()
    order = batch.rows.argsort()
    marks, has, tokens = batch.rationale[order], batch.has_rationale[order], batch.tokens[order]
    assert has.tolist() == [True, False]
    assert marks[0].tolist() == ([True, True, False] if unknown == "token" else [True, False, True])
    assert not marks[1].any()
    assert tokens[1].tolist() == [1, 0, 0]
    expected = ["x", "b", "a"] if unknown == "token" else ["b", "a", "c"]
    assert module.tokenizer.words(module.text("test", 0), module.offsets("test", 0)) == expected
