"""Streams of NumPy's legacy generator, many at once, against one at a time."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from attn_lightning.data.legacy_random import LegacyIntegers


class TestLegacyIntegers:
    @settings(max_examples=40, deadline=None)
    @given(
        st.integers(0, 2**32 - 40),
        st.lists(st.one_of(st.integers(1, 20), st.integers(1, 2**32 - 1)), min_size=1, max_size=60),
    )
    def test_equals_numpy(self, first: int, limits: list[int]) -> None:
        seeds = range(first, first + 5)
        draws = LegacyIntegers(seeds)
        found = [draws.below(limit) for limit in limits]
        for place, seed in enumerate(seeds):
            random = np.random.RandomState(seed)
            assert [column[place] for column in found] == [random.randint(0, limit) for limit in limits]

    def test_a_stream_longer_than_the_words_at_the_start(self) -> None:
        draws = LegacyIntegers(range(3))
        found = np.array([draws.below(17) for _ in range(500)])
        expected = np.array([np.random.RandomState(seed).randint(0, 17, 500) for seed in range(3)])
        assert (expected == found.T).all()

    def test_streams_with_limits_of_their_own(self) -> None:
        draws = LegacyIntegers(range(4))
        limits = [[1, 5, 1, 1000], [7, 1, 1, 3], [2, 2, 9, 1]]
        found = [draws.below(row) for row in limits]
        for seed in range(4):
            random = np.random.RandomState(seed)
            assert [row[seed] for row in found] == [random.randint(0, row[seed]) for row in limits]
