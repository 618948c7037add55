from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from attn_lightning.data.embeddings import RandomEmbeddings
from attn_lightning.data.embeddings.base import complete
from attn_lightning.errors import ConfigurationError


def no_sentences() -> Iterator[list[str]]:
    raise AssertionError("this kind of embeddings has no business with the text")


class TestRandom:
    def test_padding_is_zero_and_the_rest_has_the_scale(self, tmp_path: Path) -> None:
        words = [str(number) for number in range(2000)]
        table = RandomEmbeddings(dimension=50, scale=0.3).build(words, no_sentences, tmp_path, seed=1)
        assert table.shape == (2000, 50)
        assert table.dtype == torch.float32
        assert not table[0].any()
        assert table[1:].std().item() == pytest.approx(0.3, rel=0.01)

    def test_the_seed_decides_and_the_global_generator_is_left_alone(self, tmp_path: Path) -> None:
        state, words = torch.get_rng_state(), ["<pad>", "<unk>", "oak"]
        first, again, other = (RandomEmbeddings(3).build(words, no_sentences, tmp_path, seed) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert torch.equal(torch.get_rng_state(), state)

    @pytest.mark.parametrize(("dimension", "scale"), [(0, 0.1), (3, 0.0), (3, float("nan"))])
    def test_impossible_options(self, dimension: int, scale: float) -> None:
        with pytest.raises(ConfigurationError, match="Expected `"):
            RandomEmbeddings(dimension, scale)


def test_drawn_rows_have_the_mean_length_of_the_found_ones() -> None:
    found = {row: np.full(400, value, dtype=np.float32) for row, value in ((2, 0.1), (3, 0.3))}  # lengths 2 and 6
    table = complete(found, 500, 400, seed=0)
    assert table[4:].norm(dim=1).mean().item() == pytest.approx(4.0, rel=0.02)
    assert not table[0].any()


@pytest.mark.parametrize("size", [1e-30, 1e-44, 1.0, 1e25])
def test_drawn_rows_follow_vectors_whose_squares_leave_float32(size: float) -> None:
    found = {row: np.full(64, size, np.float32) for row in range(1, 40)}
    with np.errstate(all="raise"):
        table = complete(found, 400, 64, seed=0).double()
    assert table.isfinite().all()
    assert float(table[40:].norm(dim=1).mean()) == pytest.approx(float(table[1].norm()), rel=0.2)
