"""How few tokens the weights are spread over.

The pure functions take padded NumPy arrays `weights` (B, T) and `mask` (B, T) bool and give one float64 number per
example. Weights are divided by their sum over real tokens first, so importance scores do as well as attention. Values
at padding never count. A number is NaN where it is undefined: a weight is negative or not finite, or all are 0.
"""

from collections.abc import Callable, Mapping

import numpy as np
import scipy

from attn_lightning.metrics.agreement import distribution
from attn_lightning.metrics.measure import MANY, Measure
from attn_lightning.metrics.per_example import BoolArray, FloatArray


def entropy_bits(weights: FloatArray, mask: BoolArray) -> FloatArray:
    """Shannon entropy `H = -sum_t a_t log2 a_t`, in bits; `attn_lightning.numerics.entropy_nats` is it in nats.

    Args:
        weights: (B, T).
        mask: (B, T) bool.

    Returns:
        (B,) in [0, log2 n] for n tokens: 0 if one token has all the weight, log2 n for uniform weights.
    """
    # `entr` is 0 at 0, where `-a log a` by hand would be NaN.
    bits: FloatArray = scipy.special.entr(distribution(weights, mask)).sum(1) / np.log(2)
    return bits


def relative_entropy(weights: FloatArray, mask: BoolArray) -> FloatArray:
    """Entropy over its largest possible value, `H / log2 n`, so that texts of different lengths compare.

    Args:
        weights: (B, T).
        mask: (B, T) bool.

    Returns:
        (B,) in [0, 1], 1 for uniform weights; NaN also for a text of one token.
    """
    # One token has all the weight whatever the model does, so there is nothing to measure.
    several = mask.sum(1) >= 2
    bits = entropy_bits(weights, mask) / np.log2(np.where(several, mask.sum(1), 2))
    return np.where(several, bits.clip(0, 1), np.nan)


def effective_length(weights: FloatArray, mask: BoolArray) -> FloatArray:
    """Number of tokens over which uniform weights would have the same entropy, `exp(H)` with H in nats.

    Args:
        weights: (B, T).
        mask: (B, T) bool.

    Returns:
        (B,) in [1, n] for n tokens.
    """
    return np.exp2(entropy_bits(weights, mask))


def num_above(weights: FloatArray, mask: BoolArray, threshold: float = 0.01) -> FloatArray:
    """Number of tokens whose share of the weight is above `threshold`.

    Args:
        weights: (B, T).
        mask: (B, T) bool.
        threshold: in [0, 1).

    Returns:
        (B,) in [0, n] for n tokens.
    """
    shares = distribution(weights, mask)
    return np.where(np.isnan(shares).any(1), np.nan, (shares > threshold).sum(1))


def support_size(weights: FloatArray, mask: BoolArray) -> FloatArray:
    """Number of tokens whose weight is not exactly 0.

    It is below n only for sparse normalizers and masked weights, or where a float32 softmax underflows.

    Args:
        weights: (B, T).
        mask: (B, T) bool.

    Returns:
        (B,) in [1, n] for n tokens.
    """
    return np.where(np.isnan(distribution(weights, mask)).any(1), np.nan, (mask & (weights != 0)).sum(1))


def one_hot_distance(weights: FloatArray, mask: BoolArray) -> FloatArray:
    """Euclidean distance of the weights to the one-hot vector of their largest one, `|| a - onehot(argmax a) ||_2`.

    Args:
        weights: (B, T).
        mask: (B, T) bool.

    Returns:
        (B,) in [0, 1): 0 if one token has all the weight, `sqrt(1 - 1 / n)` for uniform weights.
    """
    shares = distribution(weights, mask)
    # sum_t a_t^2 - max^2 + (1 - max)^2 without the difference of numbers near 1.
    largest = shares.argmax(1)[:, None]
    rest = 1 - np.take_along_axis(shares, largest, axis=1)
    np.put_along_axis(shares, largest, rest, axis=1)
    return np.where(np.isnan(rest[:, 0]), np.nan, np.linalg.norm(shares, axis=1))


def gini(weights: FloatArray, mask: BoolArray) -> FloatArray:
    """Gini coefficient, `sum_i (2 i - n - 1) a_(i) / n` with the weights in ascending order, i = 1 .. n.

    Args:
        weights: (B, T).
        mask: (B, T) bool.

    Returns:
        (B,) in [0, 1 - 1 / n]: 0 for uniform weights, `1 - 1 / n` if one of n tokens has all the weight; NaN also for
        a text of one token.
    """
    lengths = mask.sum(1)
    # Zeros at padding come first and add nothing, so the last place is n in every row.
    ascending = np.sort(distribution(weights, mask), axis=1)
    from_last = np.arange(mask.shape[1]) - (mask.shape[1] - 1)
    coefficient = ((2 * from_last + lengths[:, None] - 1) * ascending).sum(1) / np.maximum(lengths, 1)
    return np.where(lengths >= 2, coefficient.clip(0), np.nan)


# Neither direction is better: sparse weights are easy to read, and they can be wrong.
MEASURES: Mapping[Measure, Callable[[FloatArray, BoolArray], FloatArray]] = {
    Measure("entropy", "Shannon entropy of the weights", 0.0, MANY, None, "bits"): entropy_bits,
    Measure("relative_entropy", "entropy of the weights over that of uniform ones", 0.0, 1.0, None): relative_entropy,
    Measure("effective_length", "tokens with the same entropy if uniform", 1.0, MANY, None, "tokens"): effective_length,
    Measure("num_above_0.01", "tokens with over 1 % of the weight", 0.0, MANY, None, "tokens"): num_above,
    Measure("support_size", "tokens whose weight is not 0", 1.0, MANY, None, "tokens"): support_size,
    Measure("one_hot_distance", "distance to all weight on the highest token", 0.0, 1.0, None): one_hot_distance,
    Measure("gini", "Gini coefficient: 0 for uniform weights, near 1 for one token alone", 0.0, 1.0, None): gini,
}
"""Every measure of sparsity and its function; the family of sparsity goes over this table."""
