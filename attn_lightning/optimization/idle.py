"""What Adam does to a number whose gradient is 0 for a while, as one movement instead of one per step.

A word that is not in a batch has a gradient of 0, but Adam still moves its vector by what is left of its momentum. From
step L on, k such steps change m, v and their parameter p, with the largest second moment V of amsgrad, to

    m_{L+k} = beta1^k m_L,    v_{L+k} = beta2^k v_L,    V_{L+k} = V_L    (since v only falls),
    p_{L+k} = p_L - m_L sum_{j=1..k} u_j / (sqrt(V_L) + eps c_j),
    u_j = lr_{L+j} beta1^j c_j / (1 - beta1^{L+j}),    c_j = sqrt(1 - beta2^{L+j})

(torch's Adam with its fraction expanded by c). The sum is an integral of 1 / (sqrt(V) + eps c) over the measure with
weight u_j at c_j, the same for all numbers that wait since L: it is taken by Gauss's quadrature with two nodes.

Source: Kingma and Ba 2015 (https://arxiv.org/abs/1412.6980), with amsgrad of Reddi et al. 2018
(https://openreview.net/forum?id=ryQu7f-RZ). Own choice: everything else here.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HORIZON = 160
"""Idle steps that still move a number: 0.9^160 is below the rounding of float32."""

FIRST, FREE_FROM, SHARE = 32, 128, 3
"""Steps before which nothing waits; from which on waits have no bound; and between them, the inverse share of the steps
so far that a wait may last. In the first steps c grows so fast that two nodes do not describe it: at step 1 they miss
the sum by up to 3 %, within these bounds by less than 1e-5 if V is next to 0. Where V is that of a gradient of 1e-6 or
more, eps hardly matters, and they miss it by less than 1e-7."""

LONGEST = 4096
"""Steps that are remembered, so that what is kept of them does not grow."""

_MOMENTS = 4

Floats = NDArray[np.float64]


def two_nodes(moments: Floats, eps: float) -> Floats:
    """Two-node quadrature of `sum_j u_j / (s + eps c_j)`, as `scale (s + shift) / ((s + linear) s + constant)`.

    Nodes x and weights w of a Gauss quadrature follow from the first four moments of a measure: with its mean c,
    variance var and third central moment over the variance g, the nodes have the sum `2c + g` and the product
    `c^2 + c g - var`. Both fractions over one denominator give the form above: one division per number. It is exact
    for measures of at most two points, and for eps = 0.

    Args:
        moments: (4, R) sums `sum_j u_j c_j^q` for q = 0..3, positive.
        eps: of Adam.

    Returns:
        (4, R) scale, shift, linear and constant, all at least 0.
    """
    total = moments[0]
    mean, second, third = moments[1:] / total
    # Rounding may leave a variance of a single point below 0. Where it is this small, one node is enough.
    spread = second - mean**2
    spread = np.where(spread > 1e-9 * mean**2, spread, 0.0)
    centred = third - 3 * mean * second + 2 * mean**3
    skew = np.divide(centred, spread, out=np.zeros_like(mean), where=spread > 0)
    coefficients: Floats = np.stack(
        [total, eps * (mean + skew), eps * (2 * mean + skew), eps**2 * (mean**2 + mean * skew - spread)]
    )
    return coefficients


def idle_move(mean: Tensor, largest: Tensor, coefficients: Tensor) -> Tensor:
    """What a number loses while it waits.

    Args:
        mean: (R, E) first moments m.
        largest: (R, E) largest second moments V.
        coefficients: (R, 4) of each row; see `two_nodes`.

    Returns:
        (R, E); exactly 0 where m or the scale is.
    """
    scale, shift, linear, constant = coefficients.unsqueeze(-1).unbind(1)
    root = largest.sqrt()
    below = (root + linear).mul_(root).add_(constant)
    return root.add_(shift).mul_(mean).mul_(scale).div_(below)


class IdleSteps:
    """The steps since one at which nothing waited: what they do to a row that waits since any of them.

    Args:
        began: number of steps until then.
        betas: of Adam.
        eps: of Adam, above 0.
        dtype: of the coefficients.
    """

    def __init__(self, began: int, betas: tuple[float, float], eps: float, dtype: torch.dtype) -> None:
        self.began = self.now = began
        self._betas, self._eps = betas, eps
        self._fading = betas[0] ** np.arange(HORIZON, 0, -1.0)
        self._moments = np.zeros((_MOMENTS, LONGEST))
        # A row that has not waited: it moves by 0, over a denominator that is not 0.
        at_rest = np.array([0.0, 0.0, 2 * eps, eps**2], dtype=torch.empty(0, dtype=dtype).numpy().dtype)
        self._coefficients = np.tile(at_rest, (LONGEST + 1, 1))

    def add(self, rate: float) -> None:
        """One more step, at a learning rate."""
        self.now += 1
        beta1, beta2 = self._betas
        root = math.sqrt(1 - beta2**self.now)
        weight = rate * root / (1 - beta1**self.now)
        last = self.now - self.began
        waiting = slice(max(0, last - HORIZON), last)
        fading = self._fading[HORIZON - (waiting.stop - waiting.start) :]
        moments = self._moments[:, waiting]
        moments += np.multiply.outer(weight * root ** np.arange(_MOMENTS), fading)
        self._coefficients[waiting] = two_nodes(moments, self._eps).T

    def since(self, steps: Tensor) -> Tensor:
        """(R, 4) coefficients for rows that wait since the (R,) given numbers of steps."""
        # Wrapped anew: a copy of this object would have a tensor and an array that no longer share their memory.
        return torch.from_numpy(self._coefficients).index_select(0, steps - self.began)

    @property
    def full(self) -> bool:
        """Whether no row may wait any longer."""
        waited = self.now - self.began
        return waited >= LONGEST or (self.now < FREE_FROM and SHARE * waited >= self.began)
