"""Other data read with a checkpoint's vocabulary: words, marks and classes."""

import numpy as np
import pytest
import torch

from attn_lightning.data.corpora import TextFiles
from attn_lightning.data.planted import Planted
from attn_lightning.data.text import UNKNOWN_ID, TextTokenizer
from attn_lightning.errors import ConfigurationError, DataFormatError
from attn_lightning.evaluation.out_of_domain import Subset, check_rationales, examples_for, subset
from attn_lightning.types import Batch


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    data = Planted(train_documents=30, validation_documents=4, test_documents=8, cache=tmp_path_factory.mktemp("c"))
    data.prepare_data()
    data.setup()
    return data


def test_own_data_is_taken_as_it_is(planted):
    examples, notes = examples_for(planted, "test", planted.tokenizer.to_str(), planted.label_names)
    assert notes == []
    assert torch.equal(examples[[2, 5]].tokens, planted.examples("test")[[2, 5]].tokens)


def test_another_vocabulary_reads_the_same_words(planted):
    words = planted.tokenizer.vocabulary[2:]
    other = TextTokenizer(["<pad>", "<unk>", *reversed(words[5:])], planted.tokenizer.options)
    examples, notes = examples_for(planted, "test", other.to_str(), planted.label_names)
    assert notes == ["the texts are read with the vocabulary of the checkpoint"]
    ours, theirs = planted.examples("test")[[0, 3, 6]], examples[[0, 3, 6]]
    assert torch.equal(ours.mask, theirs.mask)
    assert torch.equal(ours.rationale, theirs.rationale)
    assert torch.equal(ours.labels, theirs.labels)
    for row in range(3):
        for old, new in zip(ours.tokens[row][ours.mask[row]], theirs.tokens[row][theirs.mask[row]], strict=True):
            word = planted.tokenizer.vocabulary[old]
            known = word in other.vocabulary[2:]
            assert (new != UNKNOWN_ID) == known
            assert other.vocabulary[new] == (word if known else "<unk>")


def test_marks_follow_the_characters_when_unknown_words_are_dropped(planted):
    words = planted.tokenizer.vocabulary[2:]
    options = planted.tokenizer.options.__class__(**{**vars(planted.tokenizer.options), "unknown": "drop"})
    other = TextTokenizer(["<pad>", "<unk>", *words[3:]], options)
    examples, _ = examples_for(planted, "test", other.to_str(), planted.label_names)
    for row in range(8):
        ours, theirs = planted.examples("test")[[row]], examples[[row]]
        kept = [
            bool(mark)
            for token, mark in zip(ours.tokens[0], ours.rationale[0], strict=True)
            if planted.tokenizer.vocabulary[token] in other.vocabulary[2:]
        ]
        assert theirs.rationale[0].tolist() == kept


def test_classes_are_matched_by_name_and_numbers_are_places(planted):
    swapped = tuple(reversed(planted.label_names))
    examples, notes = examples_for(planted, "test", planted.tokenizer.to_str(), swapped)
    assert torch.equal(examples[[0, 1, 2]].labels, 1 - planted.examples("test")[[0, 1, 2]].labels)
    assert not any("place" in note for note in notes)
    examples, notes = examples_for(planted, "test", planted.tokenizer.to_str(), ("0", "1"))
    assert torch.equal(examples[[0, 1, 2]].labels, planted.examples("test")[[0, 1, 2]].labels)
    assert any("stand for places" in note and "as 0" in note for note in notes)


def test_other_names_are_never_matched_by_their_place(planted):
    with pytest.raises(ConfigurationError, match="classes no, yes of the checkpoint"):
        examples_for(planted, "test", planted.tokenizer.to_str(), ("no", "yes"))


def test_some_of_the_classes_are_matched_by_their_names(planted):
    """A test set of a task with many classes seldom has all of them."""
    first, second = planted.label_names
    examples, notes = examples_for(planted, "test", planted.tokenizer.to_str(), (second, "x", first, "y"))
    own = planted.examples("test")[[0, 1, 2, 3]].labels
    assert examples[[0, 1, 2, 3]].labels.tolist() == [2 if label == 0 else 0 for label in own.tolist()]
    assert "the data has 2 of the 4 classes of the checkpoint" in notes


def test_another_number_of_classes_is_refused(planted):
    with pytest.raises(ConfigurationError, match=r"3 classes of the checkpoint \(a, b, c\).*2"):
        examples_for(planted, "test", planted.tokenizer.to_str(), ("a", "b", "c"))


def test_text_is_no_input_for_segments(planted):
    with pytest.raises(ConfigurationError, match="Expected segments"):
        examples_for(planted, "test", None, planted.label_names)


def test_a_subset_is_numbered_from_zero(planted):
    examples = planted.examples("test")
    chosen = subset(examples, 3, seed=5)
    assert isinstance(chosen, Subset)
    assert (len(chosen), chosen.lengths.tolist()) == (3, [int(examples.lengths[row]) for row in chosen.rows])
    batch = chosen[[2, 0]]
    assert batch.rows.tolist() == [2, 0]
    assert torch.equal(batch.tokens, examples[chosen.rows[[2, 0]].tolist()].tokens)
    assert np.array_equal(chosen.rows, subset(examples, 3, seed=5).rows)
    assert subset(examples, 100, seed=0) is examples


class Marked:
    """Two texts, the second rationale one token too long."""

    lengths = np.array([3, 2])

    def __len__(self):
        return 2

    def __getitem__(self, rows):
        mask = torch.tensor([[True, True, True], [True, True, False]])
        rationale = torch.tensor([[True, False, False], [False, True, True]])
        batch = Batch(mask.long(), mask, torch.tensor([0, 1]), torch.tensor([0, 1]), rationale, torch.ones(2) > 0)
        return Batch(*(value[list(rows)] if value is not None else None for value in batch))


def test_a_rationale_beyond_its_text_is_named():
    with pytest.raises(DataFormatError, match=r"row 1 is longer than its 2 tokens"):
        check_rationales(Marked())


def test_pairs_of_raw_texts_and_words_agree(tmp_path):
    """The same sentence as raw text and cut into words gives the same marks under a foreign vocabulary."""
    rows = [
        '{"text": "fine work here", "tokens": ["fine", "work", "here"], "rationale": [1, 0, 0], "label": 1}',
        '{"text": "poor job", "tokens": ["poor", "job"], "rationale": [0, 1], "label": 0}',
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(rows * 4) + "\n")
    data = TextFiles(
        train=path, test=path, validation=path, tokens_column="tokens", rationale_column="rationale", cache=tmp_path
    )
    data.prepare_data()
    data.setup()
    other = TextTokenizer(["<pad>", "<unk>", "job", "fine"], data.tokenizer.options)
    examples, _ = examples_for(data, "test", other.to_str(), data.label_names)
    batch = examples[[0, 1]]
    assert batch.tokens.tolist() == [[3, 1, 1], [1, 2, 0]]
    assert batch.rationale.tolist() == [[True, False, False], [False, True, False]]


@pytest.mark.parametrize("given", [True, False])
def test_given_words_are_read_as_the_model_read_its_own(tmp_path, given):
    """A model that learned from words takes the words of other data; one that learned from raw text cuts the text."""
    path = tmp_path / "mine.jsonl"
    row = '{"tokens": ["<good>", "New York", "it"], "rationale": [0, 1, 0], "label": %d}'
    path.write_text("\n".join(row % (place % 2) for place in range(8)))
    files = {"train": path, "test": path, "validation": path, "cache": tmp_path}
    data = TextFiles(**files, tokens_column="tokens", rationale_column="rationale", max_length=2)
    data.prepare_data()
    data.setup()
    trained_on = [["it", "<good>", "New York"]] if given else ["it good york new"]
    tokenizer = TextTokenizer.train(trained_on)
    batch = examples_for(data, "test", tokenizer.to_str(), data.label_names)[0][[0]]
    read = [tokenizer.vocabulary[token] for token in batch.tokens[0]]
    assert read == (["<good>", "new york", "it"] if given else ["<unk>", "good", "<unk>", "new", "york", "it"])
    assert batch.rationale[0].tolist() == ([False, True, False] if given else [False, False, False, True, True, False])
