"""Which texts of a pool are those of other splits, and where it is said."""

from attn_lightning.data.corpora import TextFiles
from attn_lightning.data.encoding import write_rows
from attn_lightning.data.overlap import overlap
from attn_lightning.data.unlabeled import pool_line


def test_texts_are_equal_by_their_letters_and_digits_and_pairs_by_both(tmp_path):
    def rows(name, *pairs):
        made = [{"line": 1, "label": 0, "text": text, "question": question} for text, question in pairs]
        return write_rows(iter(made), tmp_path / f"{name}.arrow")

    pool = rows("pool", ("ab", "c"), ("It 's 5", "Why?"), ("!", "?"), ("Été", "日本"), ("a", "x"))
    others = [("a", "bc"), ("its 5", "why"), ("?", "!"), ("été,", "日本。"), ("a", "y")]
    assert overlap(pool, {"one": rows("one", *others), "two": rows("two", ("!", "?"))}) == {"one": 2, "two": 1}


def test_texts_of_a_foreign_pool_that_other_splits_have_too_are_counted_and_said(
    files, rows, write, prepared, caplog, tmp_path
):
    again = [{"text": row["text"].upper().replace(".", " !")} for row in rows(21, seed=1)[:5]]
    write(tmp_path / "pool.jsonl", [*again, {"text": "It's a day of its own"}])
    with caplog.at_level("INFO"):
        module = prepared(TextFiles(**files, unlabeled=TextFiles(train=tmp_path / "pool.jsonl")))
    assert module.manifest["unlabeled"]["overlap"] == {"validation": 0, "test": 5}
    assert "; unlabelled texts that other splits have too: 5 in test\n" in caplog.text


def test_nothing_is_said_of_a_pool_that_shares_none_or_does_not_say_so():
    content = {"name": "mr", "source": {}, "rows": 3, "unknown_share": 0.0}
    assert pool_line("sst", 4, content) == "sst: 4 labelled texts, 3 unlabelled ones of mr"
    assert pool_line("sst", 4, content | {"overlap": {"test": 0}}) == pool_line("sst", 4, content)
