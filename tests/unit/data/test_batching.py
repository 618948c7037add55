import pickle
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch

from attn_lightning.backbone.encoders import Average
from attn_lightning.data.batching import EncodedTexts, RaggedColumn, batch_loader
from attn_lightning.data.unlabeled import LabeledTexts
from attn_lightning.errors import ConfigurationError


@pytest.fixture
def rows():
    generator = np.random.default_rng(0)
    return [
        {
            "ids": generator.integers(1, 50, length).tolist(),
            "label": int(length % 2),
            "rationale": generator.integers(0, 2, length).astype(bool).tolist(),
            "has_rationale": bool(length % 3),
        }
        for length in generator.integers(1, 30, 257)
    ]


@pytest.fixture
def texts(rows, tmp_path):
    path = str(tmp_path / "rows.arrow")
    features = datasets.Features(
        {
            "ids": datasets.Sequence(datasets.Value("int32")),
            "label": datasets.Value("int64"),
            "rationale": datasets.Sequence(datasets.Value("bool")),
            "has_rationale": datasets.Value("bool"),
        }
    )
    # Small pieces, so that rows lie in many chunks.
    datasets.Dataset.from_list(rows, features=features).map(
        cache_file_name=path, writer_batch_size=50, features=features
    )
    return EncodedTexts(datasets.Dataset.from_file(path))


def test_ragged_column_equals_the_rows(texts, rows):
    column = RaggedColumn(texts.dataset, "ids")
    assert len(texts.dataset.data.column("ids").chunks) > 1
    assert all(column[place].tolist() == row["ids"] for place, row in enumerate(rows))


def test_ragged_column_is_a_view(texts):
    column = RaggedColumn(texts.dataset, "ids")
    assert not column[3].flags.owndata


def test_sums_over_words_equal_a_plain_loop(texts, rows):
    costs = np.random.default_rng(1).integers(1, 9, 40)  # words from 40 on are new ones, of cost 1
    expected = [sum(costs[word] if word < 40 else 1 for word in row["ids"]) for row in rows]
    assert texts.costs(costs)[0].tolist() == expected
    assert texts.costs(costs)[1] is None
    taken = np.array([7, 250, 3])
    assert LabeledTexts(texts.dataset, taken).costs(costs)[0].tolist() == [expected[row] for row in taken]


def test_batches_are_alike_in_what_the_encoder_of_the_model_pays(texts, rows):
    costs = torch.randint(1, 9, (50,), generator=torch.Generator().manual_seed(0))

    class Paying(Average):
        def word_costs(self):
            return costs

    def loader(encoder):
        strategy = SimpleNamespace(root_device=torch.device("cpu"), broadcast=lambda seed: seed)
        module = SimpleNamespace(backbone=SimpleNamespace(encoder=encoder))
        trainer = SimpleNamespace(strategy=strategy, global_rank=0, world_size=1, lightning_module=module)
        return batch_loader(texts, 16, trainer=trainer, token_budget=1000)

    paid = np.array([costs[row["ids"]].sum() for row in rows])
    batches = list(loader(Paying(4)).sampler)
    assert sorted(row for batch in batches for row in batch) == list(range(len(rows)))
    assert [paid[row] for batch in batches for row in batch] == sorted(paid, reverse=True)
    assert all(len(batch) * paid[batch].max() <= 1000 for batch in batches)
    lengths = [len(rows[row]["ids"]) for batch in loader(Average(4)).sampler for row in batch]
    assert lengths == sorted(lengths, reverse=True)


def test_a_batch_equals_a_plain_loop(texts, rows):
    wanted = [5, 250, 0, 99]
    batch = texts[wanted]
    longest = max(len(rows[row]["ids"]) for row in wanted)
    assert batch.tokens.shape == (4, longest)
    for place, row in enumerate(wanted):
        length = len(rows[row]["ids"])
        assert batch.tokens[place].tolist() == rows[row]["ids"] + [0] * (longest - length)
        assert batch.mask[place].tolist() == [True] * length + [False] * (longest - length)
        assert batch.rationale[place].tolist() == rows[row]["rationale"] + [False] * (longest - length)
        assert batch.has_rationale[place].item() == rows[row]["has_rationale"]
        assert batch.labels[place].item() == rows[row]["label"]
    assert batch.rows.tolist() == wanted
    assert batch.shortcut is None
    assert (batch.tokens.dtype, batch.mask.dtype, batch.labels.dtype) == (torch.int64, torch.bool, torch.int64)


def test_workers_open_the_file_themselves(texts):
    texts.lengths  # noqa: B018
    assert set(pickle.loads(pickle.dumps(texts)).__dict__) == {"dataset"}
    assert torch.equal(pickle.loads(pickle.dumps(texts))[[1, 2]].tokens, texts[[1, 2]].tokens)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_are_those_of_the_epoch_that_is_told_after_the_iterator_was_made(texts, num_workers):
    """So Lightning does where a run is resumed; workers would have begun with the batches of the first epoch."""
    loader = batch_loader(texts, 8, trainer=None, num_workers=num_workers, shuffle=True)
    batches = iter(loader)
    loader.sampler.set_epoch(1)
    assert [batch.rows.tolist() for batch in batches] == list(loader.sampler)
    loader.sampler.set_epoch(2)
    assert [batch.rows.tolist() for batch in loader] == list(loader.sampler)


def test_a_single_row_is_refused(texts):
    with pytest.raises(ConfigurationError, match="overfit_batches"):
        texts[3]


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda", True)])
def test_batches_for_a_cuda_device_are_pinned(device: str, pinned: bool) -> None:
    strategy = SimpleNamespace(root_device=torch.device(device), broadcast=lambda seed: seed)
    trainer = SimpleNamespace(strategy=strategy, global_rank=0, world_size=1)
    examples = SimpleNamespace(lengths=np.array([2, 3]), second_lengths=None)
    assert batch_loader(examples, 1, trainer=trainer).pin_memory is pinned
    assert not batch_loader(examples, 1, trainer=None).pin_memory
