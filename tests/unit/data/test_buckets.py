import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attn_lightning.data.buckets import LengthBatches, length_batches
from attn_lightning.errors import ConfigurationError

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


@pytest.mark.parametrize("world_size", [1, 2])
def test_every_epoch_has_as_many_batches_as_the_first(world_size):
    """Lightning asks once: it would drop the last batches of a longer epoch, and not validate after a shorter one."""
    batches = LengthBatches(LENGTHS, 4, shuffle=True, token_budget=900, world_size=world_size)
    counts = set()
    for epoch in range(12):
        batches.set_epoch(epoch)
        found = list(batches)
        counts.add(len(found))
        assert len(found) == len(batches)
        if world_size == 1:  # a share of two may have taken in the row that was left alone
            assert all(len(batch) * LENGTHS[batch].max() <= 900 or len(batch) == 1 for batch in found)
    assert len(counts) == 1
    late = LengthBatches(LENGTHS, 4, shuffle=True, token_budget=900, world_size=world_size)
    late.set_epoch(11)
    assert list(late) == found, "a run that is resumed has the batches of one that was not"


def test_texts_of_equal_length_stay_in_their_random_order():
    """An unstable sort gives them another one on every kind of CPU, and a seed other batches."""
    lengths = np.random.default_rng(0).integers(5, 9, 600)
    batches = list(LengthBatches(lengths, 10, shuffle=True, seed=3))
    order = sorted(np.random.default_rng([3, 0]).permutation(600).tolist(), key=lambda row: -lengths[row])
    assert sorted(batches) == sorted(order[start : start + 10] for start in range(0, 600, 10))


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
