import pickle
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attn_lightning.data.batching import EncodedTexts, LengthBatches, RaggedColumn, batch_loader, length_batches
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


def test_a_single_row_is_refused(texts):
    with pytest.raises(ConfigurationError, match="overfit_batches"):
        texts[3]


LENGTHS = np.random.default_rng(1).integers(1, 400, 1003)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("token_budget", [None, 500, 5000])
@pytest.mark.parametrize("size", [3, 97, 1003])
def test_every_row_once_and_equally_many_batches_per_process(shuffle, world_size, token_budget, size):
    ranks = [
        LengthBatches(LENGTHS[:size], 16, shuffle=shuffle, token_budget=token_budget, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    batches = [list(rank) for rank in ranks]
    assert len({len(rank) for rank in batches}) == 1
    assert all(len(batch) for rank in batches for batch in rank)
    assert len(ranks[0]) == len(batches[0])
    assert sorted(row for rank in batches for batch in rank for row in batch) == list(range(size))


def test_batches_keep_to_size_and_budget():
    batches = list(LengthBatches(LENGTHS, 16, shuffle=True, token_budget=1200))
    assert max(map(len, batches)) == 16
    assert all(len(batch) * LENGTHS[batch].max() <= 1200 or len(batch) == 1 for batch in batches)


def test_a_text_longer_than_the_budget_stands_alone():
    batches = list(LengthBatches(np.array([900, 10, 10]), 16, token_budget=100))
    assert batches == [[0], [1, 2]]


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 300)), min_size=4, max_size=60),
    st.integers(1, 20),
    st.integers(1, 500),
    st.sampled_from([1, 2, 3]),
)
def test_second_texts_count_in_the_budget_of_every_process(pairs, batch_size, token_budget, world_size):
    lengths, second = np.array(pairs).T
    options = {"token_budget": token_budget, "second_lengths": second, "world_size": world_size}
    ranks = [list(LengthBatches(lengths, batch_size, rank=rank, **options)) for rank in range(world_size)]
    assert sorted(row for rank in ranks for batch in rank for row in batch) == list(range(len(pairs)))
    for shares in list(zip(*ranks, strict=True))[:-1]:  # the last may have taken in what was left
        rows = [row for share in shares for row in share]
        width = lengths[rows].max() + second[rows].max()
        assert len(shares[0]) == 1 or len(shares[0]) * width <= token_budget
        assert len(shares[0]) <= batch_size
    if world_size == 1:
        plain = length_batches(lengths, batch_size, token_budget, second)
        assert [rows.tolist() for rows in plain] == ranks[0]


def test_little_padding():
    filled = LENGTHS.sum() / sum(
        len(batch) * LENGTHS[batch].max() for batch in LengthBatches(LENGTHS, 16, shuffle=True)
    )
    assert filled > 0.9


def test_epochs_differ_and_repeat():
    sampler, again = (LengthBatches(LENGTHS, 16, shuffle=True, seed=3) for _ in range(2))
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert first != second
    assert first == list(again)
    again.set_epoch(1)
    assert second == list(again)
    assert first != list(LengthBatches(LENGTHS, 16, shuffle=True, seed=4))


def test_evaluation_order_is_by_length_and_fixed():
    sampler = LengthBatches(LENGTHS, 16)
    flat = [int(LENGTHS[row]) for batch in sampler for row in batch]
    assert flat == sorted(flat, reverse=True)
    sampler.set_epoch(5)
    assert flat == [int(LENGTHS[row]) for batch in sampler for row in batch]


def test_fewer_rows_than_processes():
    with pytest.raises(ConfigurationError, match="fewer devices"):
        LengthBatches(np.array([1]), 4, world_size=2)


@given(
    st.lists(st.integers(1, 300), max_size=60),
    st.one_of(st.none(), st.integers(1, 20)),
    st.one_of(st.none(), st.integers(1, 500)),
)
def test_batches_keep_to_rows_and_tokens_and_hold_every_row_once(lengths, batch_size, token_budget):
    batches = [rows.tolist() for rows in length_batches(lengths, batch_size, token_budget)]
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    flat = [lengths[row] for rows in batches for row in rows]
    assert flat == sorted(lengths, reverse=True)
    for rows, following in zip(batches, [*batches[1:], None], strict=False):
        padded = len(rows) * lengths[rows[0]]
        assert len(rows) == 1 or token_budget is None or padded <= token_budget
        assert batch_size is None or len(rows) <= batch_size
        full = batch_size == len(rows) or (token_budget is not None and padded + lengths[rows[0]] > token_budget)
        assert full or following is None, "a batch ends only where another row would break a bound"


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda", True)])
def test_batches_for_a_cuda_device_are_pinned(device: str, pinned: bool) -> None:
    strategy = SimpleNamespace(root_device=torch.device(device), broadcast=lambda seed: seed)
    trainer = SimpleNamespace(strategy=strategy, global_rank=0, world_size=1)
    examples = SimpleNamespace(lengths=np.array([2, 3]), second_lengths=None)
    assert batch_loader(examples, 1, trainer=trainer).pin_memory is pinned
    assert not batch_loader(examples, 1, trainer=None).pin_memory
