import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attn_lightning.data.text import TextOptions, TextTokenizer, uncut_words_per_clause, valid_unicode
from attn_lightning.errors import ConfigurationError, DataFormatError

CORPUS = ["A slow film, but it isn't bad.", "It isn't slow; it's a film!", "a film a film"]


def pieces(tokenizer, text):
    return tokenizer.words(text, tokenizer.encode_batch([text]).offsets[0])


def test_vocabulary_is_ordered_by_frequency_and_cut_at_min_count():
    tokenizer = TextTokenizer.train(CORPUS, min_count=2)
    assert tokenizer.vocabulary[:2] == ["<pad>", "<unk>"]
    assert tokenizer.vocabulary[2:4] == ["a", "film"]
    assert set(tokenizer.vocabulary[2:]) == {"a", "film", "it", "slow", "is", "n't"}
    assert len(tokenizer) == 8


def test_raw_and_pretokenized_training_agree():
    words = [["a", "b", "B"], ["c", "b"]]
    assert TextTokenizer.train([" ".join(row) for row in words]).vocabulary == TextTokenizer.train(words).vocabulary


def test_vocabulary_is_not_capped():
    words = [f"w{number:05d}" for number in range(40_000)]
    assert len(TextTokenizer.train([" ".join(words)])) == 40_002


@pytest.mark.parametrize(
    ("splitting", "expected"),
    [
        ("words", ["A", "well", "-", "made", "film", ",", "U", ".", "S", ".", "is", "n't", ".", ".", "."]),
        ("treebank", ["A", "well-made", "film", ",", "U.S", ".", "is", "n't", "..."]),
        ("alphanumeric", ["A", "well", "made", "film", "U", "S", "isn", "t"]),
    ],
)
def test_splittings(splitting, expected):
    tokenizer = TextTokenizer.train(CORPUS, options=TextOptions(splitting=splitting))
    assert pieces(tokenizer, "A well-made film, U.S. isn't ...") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It isn't", ["It", "is", "n't"]),
        ("DON'T", ["DO", "N'T"]),
        ("don’t", ["do", "n’t"]),
        ("she's we'll", ["she", "'s", "we", "'ll"]),
        ("ant", ["ant"]),
        ("good<br /><br />bad", ["good", "bad"]),
        ("-LRB- so -RRB- it", ["so", "it"]),
        ("İstanbul café", ["İstanbul", "café"]),
    ],
)
def test_offsets_point_into_the_original_text(text, expected):
    assert pieces(TextTokenizer.train(CORPUS), text) == expected


@pytest.mark.parametrize("text", ["in 1999 (a) 3.5/10", "abc12def x", "7", "the 21st. no 5"])
def test_merged_numbers_keep_their_offsets_and_share_an_id(text):
    tokenizer = TextTokenizer.train(["in 1999", "a 7"], options=TextOptions(digits="merge"))
    encoding = tokenizer.encode_batch([text])
    words = tokenizer.words(text, encoding.offsets[0])
    assert "".join(words) == text.replace(" ", "")
    number = tokenizer.vocabulary.index("0")
    assert [word for word, index in zip(words, encoding.ids[0], strict=True) if index == number] == [
        word for word in words if any(character.isdigit() for character in word)
    ]


def test_merged_numbers_in_pretokenized_data():
    tokenizer = TextTokenizer.train([["12", "3.5", "of", "3rd"]], options=TextOptions(digits="merge"))
    assert tokenizer.vocabulary == ["<pad>", "<unk>", "0", "of"]


@given(st.text(max_size=40))
def test_every_token_is_a_piece_of_the_text_in_order(text):
    tokenizer = TextTokenizer(["<pad>", "<unk>", "a"])
    offsets = tokenizer.encode_batch([text]).offsets[0]
    assert (offsets[:, 0] <= offsets[:, 1]).all()
    assert (offsets >= 0).all()
    assert (offsets <= len(text)).all()
    assert (np.diff(offsets[:, 0]) >= 0).all()


def test_words_of_pretokenized_text_stay_whole():
    words = ["New York", "isn't", "``", "ok"]
    tokenizer = TextTokenizer.train([words])
    encoding = tokenizer.encode_tokens([words])
    assert tokenizer.words(" ".join(words), encoding.offsets[0]) == words
    assert len(set(encoding.ids[0].tolist())) == 4


def test_written_padding_is_not_padding():
    tokenizer = TextTokenizer.train([["<pad>", "<unk>", "a"]])
    assert tokenizer.vocabulary == ["<pad>", "<unk>", "a"]
    assert tokenizer.encode_tokens([["<pad>", "a", "<unk>"]]).ids[0].tolist() == [1, 2, 1]


@pytest.mark.parametrize("unknown", ["token", "drop"])
def test_texts_without_known_words_are_kept_and_reported(unknown):
    tokenizer = TextTokenizer.train(["a b"], options=TextOptions(unknown=unknown))
    encoding = tokenizer.encode_batch(["", "   ", "zzz", "a zzz"])
    assert encoding.unknown == [True, True, True, False]
    assert [ids.tolist() for ids in encoding.ids[:3]] == [[1], [1], [1]]
    assert encoding.offsets[2].tolist() == [[0, 3]]
    assert encoding.ids[3].tolist() == ([2, 1] if unknown == "token" else [2])


def test_dropping_keeps_offsets_and_positions_together():
    tokenizer = TextTokenizer.train(["a b"], options=TextOptions(unknown="drop"))
    encoding = tokenizer.encode_batch(["x a y b"])
    assert encoding.positions[0].tolist() == [1, 3]
    assert encoding.offsets[0].tolist() == [[2, 3], [6, 7]]


def test_truncation_is_reported():
    tokenizer = TextTokenizer.train(["a b"], options=TextOptions(max_length=2))
    encoding = tokenizer.encode_batch(["a b a b", "a b", "a"])
    assert [len(ids) for ids in encoding.ids] == [2, 2, 1]
    assert encoding.truncated == [True, False, False]


def test_case_is_kept_on_request():
    tokenizer = TextTokenizer.train(["A a"], options=TextOptions(lowercase=False))
    assert sorted(tokenizer.vocabulary[2:]) == ["A", "a"]


def test_round_trip_through_a_string():
    tokenizer = TextTokenizer.train(CORPUS, options=TextOptions(digits="merge", unknown="drop", max_length=3))
    again = TextTokenizer.from_str(tokenizer.to_str())
    assert again.vocabulary == tokenizer.vocabulary
    assert again.options == tokenizer.options
    texts = ["It isn't 1999 yet", "a film"]
    assert [x.tolist() for x in again.encode_batch(texts).ids] == [
        x.tolist() for x in tokenizer.encode_batch(texts).ids
    ]


@pytest.mark.parametrize("content", ["", "{}", "[]", json.dumps({"format": 99, "options": {}, "vocabulary": []})])
def test_a_damaged_string_is_refused(content):
    with pytest.raises(DataFormatError, match="Expected the tokenizer"):
        TextTokenizer.from_str(content)


def test_min_count_must_be_positive():
    with pytest.raises(ConfigurationError, match="min_count"):
        TextTokenizer.train(CORPUS, min_count=0)


def test_nothing_to_learn_from_gives_the_two_special_words():
    assert len(TextTokenizer.train([])) == 2
    assert TextTokenizer.train(["a"], min_count=5).encode_batch(["a"]).ids[0].tolist() == [1]


def test_count_words_does_not_need_a_vocabulary():
    assert TextTokenizer(["<pad>", "<unk>"]).count_words(["it isn't", ""]) == [3, 0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("第12集很好看。", ["第", "12", "集", "很", "好", "看", "。"]),
        ("カメラ good", ["カ", "メ", "ラ", "good"]),
        ("ที่นี่ดี isn't", ["ที่", "นี่", "ดี", "is", "n't"]),
    ],
)
@pytest.mark.parametrize("digits", ["keep", "merge"])
def test_scripts_without_spaces_are_cut_by_character(text, expected, digits):
    tokenizer = TextTokenizer.train([text], options=TextOptions(splitting="unicode", digits=digits))
    assert pieces(tokenizer, text) == expected
    assert tokenizer.encode_batch([text]).ids[0].min() > 1


@pytest.mark.parametrize(
    ("texts", "uncut"),
    [
        (["这部电影非常难看我讨厌这个故事", "很好"], True),
        (["今天，天气很好。"], True),
        (["ที่นี่สวยมาก อากาศดีจริงๆ"], True),
        (["这 部 电影 非常 难看 我 讨厌 这个 故事"], False),
        (["good", "bad"], False),
        (["A fine day in 東京."], False),
        ([], False),
    ],
)
def test_texts_of_uncut_words_are_noticed(texts, uncut):
    found = uncut_words_per_clause(texts)
    assert (found is not None) == uncut
    assert found is None or found <= 2


WORDS = ["<good>", "it", "is", "n't", "-LRB-", "9\xa01/2", "half-baked"]


def test_raw_text_is_read_as_the_given_words_of_the_training():
    tokenizer = TextTokenizer.train([WORDS])
    assert tokenizer.options.words_given
    for words in (WORDS, ["<good>", "un/known", "it", "<neverseen>"]):
        given, raw = tokenizer.encode_tokens([words]), tokenizer.encode_batch([" ".join(words)])
        assert raw.ids[0].tolist() == given.ids[0].tolist()
        assert raw.offsets[0].tolist() == given.offsets[0].tolist()
    treebank = TextTokenizer.train([WORDS], options=TextOptions(splitting="treebank"))
    assert pieces(treebank, "it isn't, <br />It half-baked!") == ["it", "is", "n't", ",", "It", "half-baked", "!"]


def test_only_a_tokenizer_of_given_words_says_so_in_its_state():
    assert "words_given" not in TextTokenizer.train(["a b"]).to_str()
    again = TextTokenizer.from_str(TextTokenizer.train([["a", "<b>"]]).to_str())
    assert again.options.words_given
    assert pieces(again, "a <b>") == ["a", "<b>"]


@pytest.mark.parametrize(
    ("text", "expected"), [("a\ud83db", "a\ufffdb"), ("\ude00", "\ufffd"), ("\ud83d\ude00", "😀"), ("é", "é")]
)
def test_no_half_of_a_surrogate_pair_is_left(text, expected):
    assert valid_unicode(text) == expected
