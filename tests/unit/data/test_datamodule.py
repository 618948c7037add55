"""Options, batches and what the other rooms read of text data."""

import pytest
import torch

from attn_lightning.data.batching import EVALUATION_TOKENS, TRAINING_TOKENS
from attn_lightning.data.corpora import TextFiles
from attn_lightning.data.embeddings import RandomEmbeddings
from attn_lightning.errors import ConfigurationError


class Counting(RandomEmbeddings):
    builds = 0

    def build(self, *arguments):
        type(self).builds += 1
        return super().build(*arguments)


def test_word_vectors_can_be_left_to_the_checkpoint(files, prepared):
    module = TextFiles(**{**files, "embeddings": Counting(8)})
    module.makes_word_vectors = False
    spec = prepared(module).spec
    assert Counting.builds == 0
    assert spec.embedding_weights is None
    assert (spec.vocabulary_size, spec.embedding_size) == (len(module.tokenizer), 8)
    module.makes_word_vectors = True
    assert module.spec.embedding_weights.shape == (len(module.tokenizer), 8)
    assert Counting.builds == 1


def test_from_files_to_batches(files, prepared):
    module = prepared(TextFiles(**files, batch_size=16, eval_batch_size=8))
    assert module.spec.num_classes == 2
    assert module.spec.vocabulary_size == len(module.tokenizer)
    assert module.spec.embedding_weights.shape == (len(module.tokenizer), 8)
    assert module.label_names == ("0", "1")
    seen = torch.cat([batch.rows for batch in module.test_dataloader()])
    assert sorted(seen.tolist()) == list(range(21))
    assert sum(len(batch.rows) for batch in module.train_dataloader()) == 72
    for batch in module.val_dataloader():
        for row, tokens, mask, label in zip(batch.rows, batch.tokens, batch.mask, batch.labels, strict=True):
            words = module.tokenizer.words(module.text("validation", row), module.offsets("validation", row))
            again = module.tokenizer.encode_batch([module.text("validation", row)])
            known = [module.tokenizer.vocabulary[index] for index in tokens[mask]]
            assert all(b in (a.lower(), "<unk>") for a, b in zip(words, known, strict=True))
            assert again.ids[0].tolist() == tokens[mask].tolist()
            assert module.dataset("validation")[int(row)]["label"] == label


def test_without_a_test_file_testing_is_refused(files, prepared):
    module = prepared(TextFiles(**{**files, "test": None}))
    with pytest.raises(ConfigurationError, match="train, validation, but got 'test'"):
        module.test_dataloader()


def test_before_setup_it_says_what_to_call(files):
    with pytest.raises(ConfigurationError, match=r"prepare_data\(\)"):
        _ = TextFiles(**files).tokenizer
    with pytest.raises(ConfigurationError, match=r"prepare_data\(\)"):
        TextFiles(**files).setup()


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"eval_batch_size": 0},
        {"min_count": 0},
        {"min_length": -1},
        {"max_length": -1},
        {"validation_fraction": 1.0},
        {"validation_fraction": 0.0},
        {"split_seed": -1},
        {"token_budget": 0},
        {"max_examples": 0},
        {"max_test_examples": 0},
        {"num_workers": -1},
    ],
)
def test_options_out_of_range(files, options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        TextFiles(**files, **options)


def test_batches_follow_the_seed(files, monkeypatch, prepared):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    module = prepared(TextFiles(**files, batch_size=4))

    def order(seed):
        torch.manual_seed(seed)
        return [batch.rows.tolist() for batch in module.train_dataloader()]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_workers_give_the_same_batches(files, prepared):
    alone, workers = (
        [batch.tokens for batch in prepared(TextFiles(**files, num_workers=count)).val_dataloader()] for count in (0, 1)
    )
    assert all(torch.equal(a, b) for a, b in zip(alone, workers, strict=True))


def test_one_very_long_text_costs_its_own_length(files, prepared, rows, write):
    write(files["train"], [*rows(200), {"text": "dull " * 140_000, "label": 0}])
    write(files["test"], [*rows(200), {"text": "dull " * 200_000, "label": 0}])
    files["validation"] = write(files["cache"].parent / "validation.jsonl", rows(10))
    module = prepared(TextFiles(**files))
    for loader, longest in ((module.train_dataloader(), 140_000), (module.test_dataloader(), 200_000)):
        shapes = [tuple(batch.tokens.shape) for batch in loader]
        assert [shape for shape in shapes if shape[1] > 1000] == [(1, longest)]
        assert sum(size for size, _ in shapes) == 201


def test_no_batch_of_ordinary_texts_reaches_the_default_budget():
    assert TRAINING_TOKENS >= 32 * 2809
    assert 128 * 2300 <= EVALUATION_TOKENS < 2 * 200_000


def test_the_budget_holds_in_every_loader(files, prepared, rows, write):
    write(files["test"], rows(60))
    module = prepared(TextFiles(**files, token_budget=40))
    for loader in (module.train_dataloader(), module.val_dataloader(), module.test_dataloader()):
        assert all(batch.tokens.numel() <= 40 or len(batch.rows) == 1 for batch in loader)


def test_the_tokenizer_may_be_chosen(files, prepared, write):
    write(files["train"], [{"text": "很好看", "label": place % 2} for place in range(20)])
    module = prepared(TextFiles(**{**files, "test": None}, tokenizer="unicode"))
    assert set(module.tokenizer.vocabulary[2:]) == set("很好看")
    assert module.manifest["notes"] == []
