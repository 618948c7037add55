"""Random attention by its statistics."""

import torch
from scipy.stats import chisquare, kstest

from attn_lightning.backbone.random_attention import random_soft_attention, random_subset_attention

MASK = torch.arange(6) < torch.tensor([6, 4, 1])[:, None]


def test_every_subset_of_the_real_tokens_is_equally_likely() -> None:
    torch.manual_seed(0)
    mask = torch.tensor([[True] * 5 + [False] * 2]).expand(6000, 7)
    attention = random_subset_attention(mask, 2)
    assert torch.equal(attention.sum(1), torch.ones(6000))
    assert torch.equal(attention.unique(), torch.tensor([0.0, 0.5]))
    assert not attention[~mask].any()
    codes = ((attention > 0) * 2 ** torch.arange(7)).sum(1)
    counts = codes.unique(return_counts=True)[1]
    assert len(counts) == 10
    assert chisquare(counts.numpy()).pvalue > 0.001


def test_a_subset_larger_than_the_text_is_the_text() -> None:
    torch.testing.assert_close(random_subset_attention(MASK, 9), MASK / MASK.sum(1, keepdim=True))


def test_soft_attention_is_uniform_on_the_simplex() -> None:
    torch.manual_seed(0)
    mask = torch.tensor([[True] * 4 + [False]]).expand(4000, 5)
    attention = random_soft_attention(mask)
    torch.testing.assert_close(attention.sum(1), torch.ones(4000))
    assert not attention[~mask].any()
    # One weight of a flat Dirichlet distribution of n tokens is Beta(1, n - 1).
    for token in range(4):
        assert kstest(attention[:, token].numpy(), "beta", args=(1, 3)).pvalue > 0.001


def test_a_generator_decides_alone() -> None:
    first, second = (random_soft_attention(MASK, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, random_soft_attention(MASK, torch.Generator().manual_seed(4)))
