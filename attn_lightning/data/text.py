"""From text to token ids and back: word-level tokenisation with offsets into the original text."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase, Normalizer, Replace
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.pre_tokenizers import Split
from tokenizers.trainers import WordLevelTrainer

from attn_lightning.checks import check_numbers
from attn_lightning.errors import DataFormatError

Splitting = Literal["words", "treebank", "alphanumeric", "unicode"]
Digits = Literal["keep", "merge"]
Unknown = Literal["token", "drop", "keep"]
IntArray = NDArray[np.int32]

PADDING, UNKNOWN, NUMBER = "<pad>", "<unk>", "0"
PADDING_ID, UNKNOWN_ID = 0, 1
FORMAT = 1

# Scripts that write no spaces between words. As ranges, which both regular expression engines read alike: Thai to Lao,
# Myanmar, Khmer, Kana, Han with its iteration mark and zero, Kana of half width, Han beyond the basic plane.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3007\u3041-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_LETTER = rf"[^\W{UNSPACED}]"

_NUMBER = re.compile(r"\b\w*?\d\w*(?:[.,:]\d+)*")
_SPACED_NUMBER = re.compile(rf"(?<!{_LETTER}){_LETTER}*?\d{_LETTER}*(?:[.,:]\d+)*")

# The lazy word ends before "n't" or at the end of the run: one pass, where a greedy one would walk back every word.
_PATTERNS: dict[Splitting, str] = {
    "words": r"(?i:n['’]t)\b|\w+?(?=(?i:n['’]t)\b|\b)|(?i:['’](?:s|re|ve|ll|d|m))\b|[^\w\s]",
    "treebank": (
        r"(?i:n['’]t)\b|\w+(?:[-.]\w+)+(?!['’]t\b)|\w+?(?=(?i:n['’]t)\b|\b)|(?i:['’](?:s|re|ve|ll|d|m))\b"
        r"|\.{2,}|-{2,}|``|''|[^\w\s]"
    ),
    "alphanumeric": r"\w+",
    # \X is a character with the marks that belong to it, such as the vowel signs and tones of Thai.
    "unicode": (
        rf"(?=[{UNSPACED}])\X|(?i:n['’]t)\b|{_LETTER}+?(?=(?i:n['’]t)\b|\b|[{UNSPACED}])"
        r"|(?i:['’](?:s|re|ve|ll|d|m))\b|[^\w\s]"
    ),
}

_GIVEN = re.compile(r"[^ \t\r\n\f\v]+")
"""A word of text that was cut before, which may hold a no-break space."""


@dataclass(frozen=True)
class TextOptions:
    """How a text becomes words.

    Attributes:
        lowercase: fold case before a word is looked up.
        digits: `merge` looks every word with a digit in it up as one and the same word, "0".
        unknown: `token` gives words outside the vocabulary the id 1; `drop` leaves them out; `keep` gives every new
            word an id of its own, for an encoder that reads the letters of words.
        splitting: how raw text is cut: `words` (runs of letters and digits, single punctuation marks, "n't" and "'s"
            on their own), `treebank` (the same, but words with inner hyphens or points stay whole, as in the Penn
            Treebank), `alphanumeric` (runs of letters and digits only; punctuation disappears), `unicode` (as `words`,
            but every character of Han, Kana, Thai, Lao, Khmer and Burmese, which write no spaces, is a word).
        max_length: the number of tokens kept of a text; 0 keeps all.
        default_tokens: the number of tokens without content that are put before every text, always the same ones;
            they come on top of `max_length`.
        words_given: the training texts came as words. Raw text is then first cut at white space; a piece that is a
            known word stays whole, and the others are cut as `splitting` says if a part of them is known.
        candidates: the word that each class goes by, where only a class that a text names can be its answer.
    """

    lowercase: bool = True
    digits: Digits = "keep"
    unknown: Unknown = "token"
    splitting: Splitting = "words"
    max_length: int = 0
    default_tokens: int = 0
    words_given: bool = False
    candidates: tuple[str, ...] = ()


class Encoding(NamedTuple):
    """Texts as ids; one entry per text, every entry has at least one token.

    Attributes:
        ids: (T,) int32 each.
        offsets: (T, 2) int32 each, start and end of the token in the original text, in characters; 0 and 0 for a
            default token.
        positions: (T,) int32 each, the token's place among all words of the text, before any were dropped or cut
            off; -1 for the token that stands for a text without words, and for default tokens.
        truncated: whether the text lost words to `max_length`.
        unknown: whether the text has not a single known word; it is kept, as `<unk>`.
    """

    ids: list[IntArray]
    offsets: list[IntArray]
    positions: list[IntArray]
    truncated: list[bool]
    unknown: list[bool]


class TextTokenizer:
    """Word-level tokenizer (Rust `tokenizers`) whose vocabulary, options and offsets travel together.

    Ids: 0 is padding, 1 an unknown word, the others are words of the training texts by falling frequency; then come the
    default tokens, if there are any.

    Args:
        vocabulary: the words by id, `<pad>` and `<unk>` first, the default tokens last.
        options: how text becomes words.
    """

    def __init__(self, vocabulary: Sequence[str], options: TextOptions | None = None) -> None:
        if list(vocabulary[:2]) != [PADDING, UNKNOWN]:
            raise DataFormatError(
                f"Expected a vocabulary that starts with {PADDING} and {UNKNOWN}, but got {list(vocabulary[:2])}; "
                "train the tokenizer again."
            )
        self.options = options or TextOptions()
        self._vocabulary = list(vocabulary)
        self._ids = {word: index for index, word in enumerate(self._vocabulary)}
        self._tokenizer = _pipeline(self.options, self._ids)
        # Written words, as they stand in pre-tokenised data; the two names above are not words there.
        self._lookup: dict[str, int] = {PADDING: UNKNOWN_ID, UNKNOWN: UNKNOWN_ID}
        names = default_token_names(self.options.default_tokens)
        if self._vocabulary[len(vocabulary) - len(names) :] != names:
            raise DataFormatError(
                f"Expected a vocabulary that ends with {', '.join(names)}, but got {list(vocabulary[-len(names) :])}; "
                "train the tokenizer again."
            )
        self._lookup |= dict.fromkeys(names, UNKNOWN_ID)
        self._default_ids = np.array([self._ids[name] for name in names], np.int32)
        # Whether new words are learned (`unknown: keep`): by who prepares data or predicts, not by who only reads.
        self.growing = False

    @classmethod
    def train(
        cls, texts: Iterable[str] | Iterable[Sequence[str]], min_count: int = 1, options: TextOptions | None = None
    ) -> "TextTokenizer":
        """Collect the vocabulary of the training texts.

        Args:
            texts: raw texts, or texts that are cut into words already.
            min_count: a word must occur so often, at least 1, to get an id of its own.
            options: how text becomes words.

        Returns:
            A tokenizer; its vocabulary holds padding and unknown only if no word is frequent enough.
        """
        check_numbers(at_least=1, advice="1 keeps all words", min_count=min_count)
        options = options or TextOptions()
        stream = iter(texts)
        # Looked at and put back by `chain`: a stream of words and one of texts need different trainers.
        first = next(stream, "")
        if isinstance(first, str):
            words = _train_raw(chain([first], stream), min_count, options)  # type: ignore[arg-type]
        else:
            options = replace(options, words_given=True)
            words = _train_words(chain([first], stream), min_count, options)
        trained = cls([PADDING, UNKNOWN, *words, *default_token_names(options.default_tokens)], options)
        trained.growing = options.unknown == "keep"
        return trained

    @property
    def vocabulary(self) -> list[str]:
        """The words by id."""
        return list(self._vocabulary)

    @property
    def candidates(self) -> IntArray:
        """(C,) the id of the word of every class, or (0,); see `TextOptions`."""
        words = (_normalize(word, self.options) for word in self.options.candidates)
        return np.array([self._ids.get(word, UNKNOWN_ID) for word in words], np.int32)

    def __len__(self) -> int:
        return len(self._vocabulary)

    def encode_batch(self, texts: Sequence[str], whole: bool = False) -> Encoding:
        """Raw texts to ids; all cores, a text without words becomes one `<unk>`.

        Args:
            texts: raw texts.
            whole: neither cut them off nor put default tokens before them, as for the second text of a pair.
        """
        pieces = []
        for text, encoded in zip(
            texts, self._tokenizer.encode_batch(list(texts), add_special_tokens=False), strict=True
        ):
            ids = np.array(encoded.ids, np.int32)
            offsets = np.fromiter(chain.from_iterable(encoded.offsets), np.int32, 2 * len(ids)).reshape(-1, 2)
            # In this order: a number must be whole before pieces are joined, and only what stays unknown is learned.
            if self.options.digits == "merge":
                _widen_numbers(text, offsets, _number(self.options))
            if self.options.words_given:
                ids, offsets = self._as_given(text, ids, offsets)
            if self.growing:
                self._learn(text, ids, offsets)
            pieces.append((ids, offsets, len(text)))
        return self._finish(pieces, whole)

    def encode_tokens(self, tokens: Sequence[Sequence[str]]) -> Encoding:
        """Texts that are cut into words already; every word stays one token and offsets refer to `" ".join(words)`."""
        pieces = []
        for words in tokens:
            ids = np.fromiter(map(self._look_up, words), np.int32, len(words))
            # Each word and the space behind it; the last has none, hence - 1.
            ends = np.cumsum(np.fromiter((len(word) + 1 for word in words), np.int32, len(words)), dtype=np.int32) - 1
            starts = ends - np.fromiter(map(len, words), np.int32, len(words))
            pieces.append((ids, np.stack([starts, ends], 1), int(ends[-1]) if len(ends) else 0))
        return self._finish(pieces)

    def count_words(self, texts: Sequence[str]) -> list[int]:
        """How many words each raw text has, whether they are known or not."""
        # The fast variant keeps no offsets, which counting does not need.
        return [len(encoded) for encoded in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def words(self, text: str, offsets: Iterable[Sequence[int]]) -> list[str]:
        """The pieces of the original text that the tokens stand for."""
        return [text[start:end] for start, end in offsets]

    def to_str(self) -> str:
        """All of it as JSON, for a checkpoint or a file."""
        options = asdict(self.options)
        for newer in ("words_given", "candidates"):
            if not options[newer]:
                del options[newer]  # as before there was this option: two states of one tokenizer are equal
        content = {"format": FORMAT, "options": options, "vocabulary": self._vocabulary}
        return json.dumps(content, ensure_ascii=False)

    @classmethod
    def from_str(cls, content: str) -> "TextTokenizer":
        """What `to_str` wrote."""
        try:
            state: dict[str, Any] = json.loads(content)
            if state["format"] != FORMAT:
                raise ValueError(f"format {state['format']}")
            # JSON has made a list of it, and options that were read back must equal those that were written.
            candidates = tuple(state["options"].pop("candidates", ()))
            return cls(state["vocabulary"], TextOptions(**state["options"], candidates=candidates))
        except (ValueError, KeyError, TypeError) as error:
            raise DataFormatError(
                f"Expected the tokenizer as `to_str` of this version (format {FORMAT}) writes it, but got {error!r}; "
                "prepare the data again or use the version that wrote it."
            ) from error

    def _look_up(self, word: str) -> int:
        known = self._lookup.get(word)
        if known is None or (known == UNKNOWN_ID and self.growing):
            normal = _normalize(word, self.options)
            if self.growing and normal not in self._ids and normal.strip():
                self._ids[normal] = len(self._vocabulary)
                self._vocabulary.append(normal)
            known = self._lookup[word] = self._ids.get(normal, UNKNOWN_ID)
        return known

    def _learn(self, text: str, ids: IntArray, offsets: IntArray) -> None:
        """Ids for words that the vocabulary did not have when the Rust part was made, in place."""
        for place in np.flatnonzero(ids == UNKNOWN_ID).tolist():
            start, end = offsets[place].tolist()
            ids[place] = self._look_up(text[start:end])

    def _as_given(self, text: str, ids: IntArray, offsets: IntArray) -> tuple[IntArray, IntArray]:
        """Join the parts of a piece between spaces that training read as one word."""
        found: list[int] = []
        spans: list[tuple[int, int]] = []
        spaced = [match.span() for match in _GIVEN.finditer(text)]
        bounds = np.searchsorted(offsets[:, 0], spaced).tolist()
        for (start, end), (first, last) in zip(spaced, bounds, strict=True):
            whole = self._look_up(text[start:end])
            # A piece of unknown parts was one unknown word in training; a line break written in HTML has no parts.
            if whole != UNKNOWN_ID or (last - first > 1 and (ids[first:last] == UNKNOWN_ID).all()):
                found.append(whole)
                spans.append((start, end))
            else:
                found.extend(ids[first:last].tolist())
                spans.extend(map(tuple, offsets[first:last].tolist()))
        return np.array(found, np.int32), np.array(spans, np.int32).reshape(-1, 2)

    def _finish(self, pieces: Sequence[tuple[IntArray, IntArray, int]], whole: bool = False) -> Encoding:
        limit = 0 if whole else self.options.max_length
        result = Encoding([], [], [], [], [])
        for ids, offsets, length in pieces:
            positions = np.arange(len(ids), dtype=np.int32)
            if self.options.unknown == "drop":
                positions = positions[ids != UNKNOWN_ID]
            result.truncated.append(0 < limit < len(positions))
            positions = positions[: limit or None]
            # Counted before the stand-in is put there: the report says how many texts the vocabulary cannot read.
            result.unknown.append(not (ids[positions] != UNKNOWN_ID).any())
            # A model needs at least one token per text: attention over nothing is 0 / 0.
            if not len(positions):
                ids, offsets, positions = (np.array(x, np.int32) for x in ([UNKNOWN_ID], [[0, length]], [-1]))
            ids, offsets = ids[positions], offsets[positions]
            if before := 0 if whole else len(self._default_ids):
                ids = np.concatenate([self._default_ids, ids])
                offsets = np.concatenate([np.zeros((before, 2), np.int32), offsets])
                positions = np.concatenate([np.full(before, -1, np.int32), positions])
            result.ids.append(ids)
            result.offsets.append(offsets)
            result.positions.append(positions)
        return result


def valid_unicode(text: str) -> str:
    """The text with U+FFFD for every half of a surrogate pair, which no UTF-8 can hold; JSON can write such a half."""
    try:
        text.encode()
    except UnicodeEncodeError:
        # UTF-16 joins two halves that belong together to their character; only a half by itself is replaced.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def uncut_words_per_clause(texts: Iterable[str]) -> float | None:
    """Words between two punctuation marks where texts of a script without spaces were not cut into words, else None.

    They were not cut if most letters are of such a script and there is hardly more than one word between two marks, or
    its words are longer than six characters on average, as phrases are.
    """
    letters = unspaced = words = clauses = 0
    for text in texts:
        letters += sum(map(str.isalnum, text))
        unspaced += len(re.findall(f"[{UNSPACED}]", text))
        words += len(re.findall(rf"[\w{UNSPACED}]+", text))
        clauses += len(re.findall(rf"[\w\s{UNSPACED}]*[\w{UNSPACED}][\w\s{UNSPACED}]*", text))
    uncut = 2 * unspaced > letters and (2 * words < 3 * clauses or unspaced > 6 * words)
    return words / clauses if uncut else None


def default_token_names(count: int) -> list[str]:
    """How the default tokens are called in a vocabulary; no word of a text is taken for one."""
    return [f"<default {number}>" for number in range(1, count + 1)]


def _pipeline(options: TextOptions, ids: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(WordLevel(ids, unk_token=UNKNOWN))
    # Before letters are folded, since the brackets are written in capitals.
    # Line breaks and the treebank's written brackets become space.
    steps: list[Normalizer] = [Replace(Regex(r"<br\s*/?>"), " "), Replace(Regex(r"-[LR]RB-"), " ")]
    if options.lowercase:
        steps.append(Lowercase())
    if options.digits == "merge":
        steps.append(Replace(Regex(_number(options).pattern), NUMBER))
    tokenizer.normalizer = Normalizers(steps)
    tokenizer.pre_tokenizer = Split(Regex(_PATTERNS[options.splitting]), "removed", invert=True)
    return tokenizer


def _number(options: TextOptions) -> re.Pattern[str]:
    return _SPACED_NUMBER if options.splitting == "unicode" else _NUMBER


def _normalize(word: str, options: TextOptions) -> str:
    if options.digits == "merge" and any(character.isdigit() for character in word):
        return NUMBER
    return word.lower() if options.lowercase else word


def _train_raw(texts: Iterator[str], min_count: int, options: TextOptions) -> list[str]:
    tokenizer = _pipeline(options, {PADDING: PADDING_ID, UNKNOWN: UNKNOWN_ID})
    trainer = WordLevelTrainer(
        # The trainer's own limit of 30,000 words would cut a vocabulary off in silence.
        vocab_size=2**31 - 1,
        min_frequency=min_count,
        special_tokens=[PADDING, UNKNOWN],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)[2:]


def _train_words(texts: Iterable[Sequence[str]], min_count: int, options: TextOptions) -> list[str]:
    written = Counter(chain.from_iterable(texts))
    counts: Counter[str] = Counter()
    for word, count in written.items():
        counts[_normalize(word, options)] += count
    # A text may hold the names of the special tokens, whose ids are taken.
    kept = [word for word, count in counts.items() if count >= min_count and word not in (PADDING, UNKNOWN)]
    return sorted(kept, key=lambda word: (-counts[word], word))


def _widen_numbers(text: str, offsets: IntArray, number: re.Pattern[str]) -> None:
    """A merged number covers its last character only: move its start back to where the number begins."""
    starts = {match.end(): match.start() for match in number.finditer(text)}
    for token, end in enumerate(offsets[:, 1].tolist()):
        offsets[token, 0] = starts.get(end, offsets[token, 0])
