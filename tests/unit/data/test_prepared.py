"""What is read of a prepared folder: words as they were given, words as they were encoded."""

import pytest

from attn_lightning.data.corpora import TextFiles
from attn_lightning.data.embeddings import RandomEmbeddings
from attn_lightning.data.prepared import data_line


@pytest.mark.parametrize("unknown", ["token", "drop"])
def test_given_words_are_kept_whole_and_in_full(files, prepared, write, unknown):
    texts = [["New York", "<b>", "c"], ["d", "c", "<b>"]]
    write(files["train"], [{"words": texts[place % 2], "label": place % 2} for place in range(20)])
    write(files["test"], [{"words": ["x y", "c", "<b>", ""], "label": 0}, {"words": [], "label": 1}])
    module = prepared(TextFiles(**files, tokens_column="words", unknown=unknown, max_length=2))
    assert module.words("test") == [["x y", "c", "<b>", ""], []]
    assert module.tokenizer.options.words_given
    assert (
        prepared(
            TextFiles(
                **{
                    **files,
                    "test": None,
                    "train": write(files["train"], [{"text": "a b", "label": place % 2} for place in range(20)]),
                }
            )
        ).words("train")
        is None
    )


class Listening(RandomEmbeddings):
    def build(self, vocabulary, sentences, cache, seed):
        self.heard, self.name = list(sentences()), sentences.name
        return super().build(vocabulary, sentences, cache, seed)


def test_embeddings_see_the_training_words(files, prepared):
    module = prepared(TextFiles(**{**files, "embeddings": (listening := Listening(4))}))
    encoded = module.tokenizer.encode_batch(module.texts("train")).ids
    assert listening.heard == [[module.tokenizer.vocabulary[index] for index in ids] for ids in encoded]
    assert listening.name == f"{module.digest} {module.manifest['splits']['train']['sha256']}"


def test_embeddings_see_the_words_of_second_texts_too(files, write, prepared):
    rows = [{"text": "a day", "claim": f"it rains {place}", "label": place % 2} for place in range(6)]
    for name in ("train", "test"):
        write(files[name], rows)
    files["validation"] = files["test"]
    options = {**files, "question_column": "claim", "embeddings": (listening := Listening(4))}
    pool = TextFiles(train=write(files["train"].with_name("pool.jsonl"), rows[:1]), question_column="claim")
    prepared(TextFiles(**options, default_tokens=1, unlabeled=pool, vocabulary_of="train_and_pool"))
    firsts, seconds = [["a", "day"]] * 6, [["it", "rains", str(place)] for place in range(6)]
    assert listening.heard == [*firsts, *seconds, firsts[0], seconds[0]]
    assert listening.name.endswith(" both texts"), "what was trained on the first ones is not taken for these"


def manifest(kind, names):
    split = {"rows": 1200, "longest": 7, "truncated": 3}
    return {
        "name": "files",
        "source": {"kind": kind},
        "label_names": names,
        "splits": {"train": split, "test": {**split, "longest": 20_000, "truncated": 0}},
        "notes": ["a note"],
    }


def test_sizes_lengths_and_what_was_done():
    assert data_line(manifest("folder", ["no", "yes"])) == (
        "files: 1,200 / 1,200 texts (train / test); 2 classes; the longest text has 20,000 words "
        "(`--data.max_length` cuts longer ones off); 3 / 0 cut off; a note"
    )


@pytest.mark.parametrize(
    ("kind", "names", "shown"),
    [
        ("files", ["I", "this"], "; 2 classes (I, this); "),
        ("files", ["x" * 90, "y"], f"; 2 classes ({'x' * 30}, y); "),
        ("files", [str(number) for number in range(11)], "; 11 classes; "),
        ("embedded", ["I", "this"], "; 2 classes; "),
    ],
)
def test_the_classes_of_own_files_are_named(kind, names, shown):
    assert shown in data_line(manifest(kind, names))
