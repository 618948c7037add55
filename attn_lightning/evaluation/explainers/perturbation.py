"""LIME and SHAP: a linear model of the prediction as a function of which tokens are there.

Both draw subsets of the tokens of a text, predict each of the shortened texts, and fit weights to the predictions. The
subsets of many documents run together, packed by length; the fit is a small least-squares problem per document.
"""

import zlib
from typing import ClassVar, get_args

import numpy as np
import scipy
from numpy.typing import NDArray

from attn_lightning.checks import check_choice, check_numbers
from attn_lightning.evaluation.erasure import Replacement, Variants
from attn_lightning.evaluation.explainer import Explainer
from attn_lightning.evaluation.subject import ProgressCallback, Ragged, Subject
from attn_lightning.metrics.per_example import BoolArray, to_array
from attn_lightning.types import Batch

_CHUNK = 16
"""Token budgets of subsets that are drawn before they run: enough to sort them by length, and a bound on memory."""


class _Perturbation(Explainer):
    """Draws subsets of every document's tokens, predicts them, and asks the subclass for the weights.

    Args:
        samples: subsets per text, at least 2.
        replacement: what happens to the tokens outside a subset: `delete`, `unknown` or `attention`.

    Raises:
        ConfigurationError: `samples` is less than 2, or an unknown replacement.
    """

    def __init__(self, samples: int = 200, replacement: Replacement = "delete") -> None:
        check_numbers(self, at_least=2, samples=samples)
        check_choice(self, choices=get_args(Replacement), replacement=replacement)
        self.samples = samples
        self.replacement = replacement

    def explain(self, subject: Subject, advance: ProgressCallback) -> Ragged:
        """See `Explainer.explain`."""
        scores = Ragged.empty(subject.examples.lengths)
        for batch in subject.batches():
            self._explain_batch(subject, batch, scores, advance)
        return scores

    def subsets(self, length: int, generator: np.random.Generator) -> BoolArray:
        """(S, n) which tokens are there; the first subset is the whole text."""
        raise NotImplementedError

    def fit(self, subsets: BoolArray, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) signed weights of the tokens from the (S, n) subsets and the (S,) probability that each gives."""
        raise NotImplementedError

    def _explain_batch(self, subject: Subject, batch: Batch, scores: Ragged, advance: ProgressCallback) -> None:
        """Document after document until their subsets fill the chunk; then all of them run together."""
        variants, mask, rows = Variants(subject, batch), to_array(batch.mask), to_array(batch.rows)
        lengths = mask.sum(1)
        stream = zlib.crc32(self.name.encode())
        pending: list[tuple[int, BoolArray]] = []
        size = 0
        for place, (row, length) in enumerate(zip(rows.tolist(), lengths.tolist(), strict=True)):
            # One generator per row, so that the draws for a text depend neither on its batch nor on other texts.
            generator = np.random.default_rng(subject.generator(stream, row).initial_seed())
            drawn = self.subsets(length, generator)
            pending.append((place, drawn))
            size += len(drawn) * mask.shape[1]
            if size >= _CHUNK * subject.token_budget or place == len(rows) - 1:
                self._finish(variants, batch, pending, scores)
                advance(len(pending))
                pending, size = [], 0

    def _finish(self, variants: Variants, batch: Batch, drawn: list[tuple[int, BoolArray]], scores: Ragged) -> None:
        counts = [len(subsets) for _, subsets in drawn]
        owners = np.repeat([place for place, _ in drawn], counts)
        ends = np.cumsum(counts)[:-1]
        keep = np.zeros((len(owners), batch.mask.shape[1]), np.bool_)
        for lines, (_, subsets) in zip(np.split(keep, ends), drawn, strict=True):
            lines[:, : subsets.shape[1]] = subsets
        probabilities = variants.erased(owners, keep, self.replacement)
        rows = to_array(batch.rows)
        for found, (place, subsets) in zip(np.split(probabilities, ends), drawn, strict=True):
            # The first subset of each text is all of it, so that its class is the one to explain.
            weights = self.fit(subsets, found[:, found[0].argmax()])
            scores.put(rows[place : place + 1], np.abs(weights)[None], np.ones((1, len(weights)), np.bool_))


class Lime(_Perturbation):
    """`|w_t|` of a ridge regression of p_y on the presence of the tokens, weighted by closeness to the text.

        min_{w, b}  sum_S  exp(-d_S^2 / (2 kernel_width^2)) (p_y(S) - b - sum_{t in S} w_t)^2  +  ridge sum_t w_t^2

    S runs over the whole text and subsets that leave out 1 to n tokens, each number equally likely; `d_S = 1 -
    sqrt(|S| / n)` is the cosine distance from the whole text; p_y is the probability of the class that the whole text
    gets. Weights are absolute because a word that speaks against the class matters too.

    Source: Ribeiro et al. 2016, https://arxiv.org/abs/1602.04938, with the sampling, kernel and ridge of its code for
    text and without its selection of features.
    Cost: `samples` passes of the encoder over half of the text.

    Args:
        samples: subsets per text, the whole one among them, at least 2. Rarely enough for more tokens than that: the
            ridge then decides.
        kernel_width: sigma of the closeness, above 0.
        ridge: of the regression, at least 0; with 0 the solution of smallest norm is taken.
        replacement: what happens to the tokens outside a subset: `delete`, `unknown` or `attention`.

    Raises:
        ConfigurationError: an option outside its range.
    """

    name: ClassVar[str] = "lime"

    def __init__(
        self,
        samples: int = 200,
        kernel_width: float = 0.25,
        ridge: float = 1.0,
        replacement: Replacement = "delete",
    ) -> None:
        super().__init__(samples, replacement)
        check_numbers(self, above=0, kernel_width=kernel_width)
        check_numbers(self, at_least=0, ridge=ridge)
        self.kernel_width = kernel_width
        self.ridge = ridge

    def subsets(self, length: int, generator: np.random.Generator) -> BoolArray:
        """The whole text, then subsets that leave out a uniform number of tokens, 1 to n."""
        left_out = generator.integers(1, length + 1, self.samples - 1)
        return np.concatenate([np.ones((1, length), np.bool_), ~_random_subsets(left_out, length, generator)])

    def fit(self, subsets: BoolArray, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `weighted_ridge`."""
        # The cosine of a subset and the whole text, as vectors of 0 and 1, is the root of the share that is kept.
        distances = 1 - np.sqrt(subsets.mean(1))
        closeness = np.exp(-(distances**2) / (2 * self.kernel_width**2))
        return weighted_ridge(subsets.astype(np.float64), values, closeness, self.ridge)


class Shap(_Perturbation):
    """`|phi_t|`, the Shapley value of a token for p_y, where a coalition is the text without all other tokens.

        phi_t = sum_{S without t} |S|! (n - |S| - 1)! / n! (p_y(S + t) - p_y(S))

    p_y is the probability of the class that the whole text gets. Texts with at most `samples` subsets get exact values;
    for longer ones they are estimated by least squares on drawn subsets (Kernel SHAP), each with its complement, under
    the constraint that they sum to `p_y(text) - p_y(nothing)`. Values are absolute because a word that speaks against
    the class matters too.

    Source: Lundberg and Lee 2017, https://arxiv.org/abs/1705.07874; pairing as in Covert and Lee 2021,
    https://arxiv.org/abs/2012.01536.
    Cost: `samples` passes of the encoder over half of the text, or four times as many as the text has tokens if that
    is more: fewer hardly determine the values.

    Args:
        samples: subsets per text, at least 2.
        replacement: what happens to the tokens outside a subset: `delete`, `unknown` or `attention`.

    Raises:
        ConfigurationError: an option outside its range.
    """

    name: ClassVar[str] = "shap"

    def subsets(self, length: int, generator: np.random.Generator) -> BoolArray:
        """The whole text, nothing, and then all other subsets, or pairs of a drawn one and its complement."""
        ends = np.stack([np.ones(length, np.bool_), np.zeros(length, np.bool_)])
        if self._enumerates(length):
            numbers = np.arange(1, (1 << length) - 1)
            # The bits of 1 to 2^n - 2 are all subsets but the two ends.
            return np.concatenate([ends, (numbers[:, None] >> np.arange(length) & 1).astype(np.bool_)])
        sizes = np.arange(1, length)
        # Sizes in proportion to their weight in the kernel; the fit then weighs all draws alike.
        share = 1 / (sizes * (length - sizes))
        pairs = max(self.samples, 4 * length) // 2
        drawn = _random_subsets(generator.choice(sizes, pairs, p=share / share.sum()), length, generator)
        # With every subset its complement, which lowers the variance of the fit (Covert and Lee 2021).
        return np.concatenate([ends, drawn, ~drawn])

    def fit(self, subsets: BoolArray, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `shapley_regression`; drawn subsets come as often as the kernel says, listed ones are weighted by it."""
        inner, length = subsets[2:], subsets.shape[1]
        weights = shapley_kernel(inner.sum(1), length) if self._enumerates(length) else np.ones(len(inner))
        return shapley_regression(inner.astype(np.float64), values[2:], weights, full=values[0], empty=values[1])

    def _enumerates(self, length: int) -> bool:
        return 1 << length <= max(self.samples, 4)


def weighted_ridge(
    features: NDArray[np.float64], values: NDArray[np.float64], weights: NDArray[np.float64], ridge: float
) -> NDArray[np.float64]:
    """Coefficients w of `min_{w, b} sum_s weights_s (values_s - b - features_s . w)^2 + ridge |w|^2`.

    Args:
        features: (S, n).
        values: (S,).
        weights: (S,) at least 0, not all 0.
        ridge: at least 0; with 0 the solution of smallest norm.

    Returns:
        (n,) coefficients, without the intercept; equal to scikit-learn's `Ridge`.
    """
    # Centred instead of a column of ones: the intercept must not be shrunk with the weights.
    shares = weights / weights.sum()
    x, y = features - shares @ features, values - shares @ values
    roots = np.sqrt(weights)
    rows, targets = x * roots[:, None], y * roots
    if ridge > 0:
        # The penalty as more rows: least squares then never squares the condition of the problem.
        rows = np.concatenate([rows, np.sqrt(ridge) * np.eye(x.shape[1])])
        targets = np.concatenate([targets, np.zeros(x.shape[1])])
    solution: NDArray[np.float64] = np.linalg.lstsq(rows, targets, rcond=None)[0]
    return solution


def shapley_regression(
    subsets: NDArray[np.float64], values: NDArray[np.float64], weights: NDArray[np.float64], full: float, empty: float
) -> NDArray[np.float64]:
    """`min_phi sum_S weights_S (values_S - empty - sum_{t in S} phi_t)^2` under `sum_t phi_t = full - empty`.

    With all subsets and the Shapley kernel as weights the solution is the Shapley values.

    Args:
        subsets: (S, n) of 0 and 1, neither the empty subset nor the whole.
        values: (S,).
        weights: (S,) above 0.
        full: value of the whole.
        empty: value of nothing.

    Returns:
        (n,) the solution; of several the one closest to even shares.
    """
    length = subsets.shape[1]
    even = (full - empty) / length
    if length == 1:
        return np.array([even])
    # Deviations from even shares sum to 0; written in a basis of such vectors, the constraint is gone.
    basis = np.linalg.qr(np.eye(length)[:, 1:] - 1 / length)[0]
    roots = np.sqrt(weights)
    targets = (values - empty - subsets.sum(1) * even) * roots
    deviations = np.linalg.lstsq((subsets @ basis) * roots[:, None], targets, rcond=None)[0]
    found: NDArray[np.float64] = even + basis @ deviations
    return found


def shapley_kernel(sizes: NDArray[np.int64], length: int) -> NDArray[np.float64]:
    """Weight of a subset of k out of n tokens, `(n - 1) / (C(n, k) k (n - k))`.

    Args:
        sizes: (S,) k, in 1..n-1.
        length: n.

    Returns:
        (S,) above 0.
    """
    kernel: NDArray[np.float64] = (length - 1) / (scipy.special.binom(length, sizes) * sizes * (length - sizes))
    return kernel


def _random_subsets(sizes: NDArray[np.int64], length: int, generator: np.random.Generator) -> BoolArray:
    """(S, n) with `sizes` (S,) tokens chosen in each row, at least 1, all choices equally likely."""
    numbers = generator.random((len(sizes), length))
    # The k smallest of independent numbers are a uniform subset of size k.
    largest = np.take_along_axis(np.sort(numbers, axis=1), sizes[:, None] - 1, axis=1)
    chosen: BoolArray = numbers <= largest
    return chosen
