"""Adam with amsgrad over a table of word vectors, without a pass over the whole table at every step.

A word that is not in a batch has a gradient of 0, but Adam still moves its vector by what is left of its momentum. From
step L on, k such steps change m, v and their parameter p, with the largest second moment V, to

    m_{L+k} = beta1^k m_L,    v_{L+k} = beta2^k v_L,    V_{L+k} = V_L    (since v only falls),
    p_{L+k} = p_L - m_L sum_{j=1..k} u_j / (sqrt(V_L) + eps c_j),
    u_j = lr_{L+j} beta1^j c_j / (1 - beta1^{L+j}),    c_j = sqrt(1 - beta2^{L+j})

(torch's Adam with its fraction expanded by c). So they can all be done at once, at the moment when the word is read
again. The sum is an integral of 1 / (sqrt(V) + eps c) over the measure that has weight u_j at c_j: the same for all
numbers of a row, hence taken by Gauss's quadrature with a few nodes. It is exact for k <= `NODES` and for eps = 0. From
step `WARM_UP` on, before which no row waits, its relative error is below 6e-8, the rounding of float32, for every V.
What the steps from `HORIZON` on would add weighs less than that rounding, and is left out.

Source: Kingma and Ba 2015 (https://arxiv.org/abs/1412.6980), with amsgrad of Reddi et al. 2018
(https://openreview.net/forum?id=ryQu7f-RZ). Own choice: everything else here.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

NODES, WARM_UP, HORIZON = 3, 128, 160
"""Of the quadrature; steps in which all rows move at once; idle steps that still move a row (0.9^160 < 2^-24)."""

LONGEST_WAIT = 4096
"""Steps after which all rows are brought up to date, so that what is remembered of the steps stays short."""

_PART = 4096
"""Rows at once, so that a large table needs no second one as its workspace."""

Floats = NDArray[np.float64]


def gauss_nodes(weights: Floats, points: Floats, num_nodes: int) -> tuple[Floats, Floats]:
    """Gauss's quadrature of discrete measures: `sum_j w_j f(x_j)` as a sum over few nodes.

    Recurrence coefficients by Stieltjes' procedure, nodes and weights by the eigenvectors of the Jacobi matrix (Golub
    and Welsch 1969, https://doi.org/10.2307/2004418). Exact for polynomials f of degree `2 num_nodes - 1`, and for
    every f where a measure has no more points than nodes.

    Args:
        weights: (R, J) at least 0, with a positive sum in every row; 0 leaves a point out.
        points: (R, J).
        num_nodes: N.

    Returns:
        (R, N) nodes, between the least and the largest point, and (R, N) weights of at least 0.
    """
    total = weights.sum(1)
    share = weights / total[:, None]
    diagonal, below = np.zeros((2, len(weights), num_nodes))
    before, now = np.zeros_like(points), np.ones_like(points)
    for degree in range(num_nodes):
        # A node that is not needed lies at the mean, among the points, where f is defined.
        needed = (now != 0).any(1)
        diagonal[:, degree] = np.where(needed, (share * points * now**2).sum(1), diagonal[:, 0])
        if degree + 1 == num_nodes:
            break
        further = (points - diagonal[:, degree, None]) * now - below[:, degree, None] * before
        norm = np.sqrt((share * further**2).sum(1))
        # Points are in (0, 1]: what is left of so small a norm is rounding, and the measure has no further nodes.
        norm = np.where(norm > 1e-10, norm, 0.0)
        below[:, degree + 1] = norm
        before, now = now, np.divide(further, norm[:, None], out=np.zeros_like(further), where=norm[:, None] > 0)
    matrices = np.zeros((len(weights), num_nodes, num_nodes))
    places = np.arange(num_nodes)
    matrices[:, places, places] = diagonal
    matrices[:, places[1:], places[:-1]] = below[:, 1:]
    nodes, vectors = np.linalg.eigh(matrices)
    return nodes, total[:, None] * vectors[:, 0] ** 2


class RowAdam(torch.optim.Adam):
    """Adam with amsgrad whose table of word vectors moves row by row; all other parameters as torch's fused Adam does.

    While it is attached, the table's gradients are sparse and looking words up brings their rows up to date first. So
    do `state_dict` of the table and of the optimizer, which holds what torch's own would. Whoever reads
    `table.weight` in another way must call `bring_up_to_date` before.

    Args:
        groups: of parameters; that of the table without weight decay, which would move every row at every step.
        table: on a CPU.
        lr: step size of groups that have none of their own.

    Cost: of a step that of its own distinct words, instead of nine passes over the table. A step of 32 texts of 19
    words takes as long as with torch's Adam at 15,000 words of 300 numbers, and stays as long with more of them.
    """

    def __init__(self, groups: list[dict[str, Any]], table: nn.Embedding, lr: float) -> None:
        super().__init__(groups, lr=lr, amsgrad=True, fused=True)
        self._table = table
        self._up_to = torch.zeros(len(table.weight), dtype=torch.int64)
        self._forget()
        table.sparse = True
        self._hooks = [
            table.register_forward_pre_hook(lambda _, inputs: self.bring_up_to_date(inputs[0].unique())),
            table.register_state_dict_pre_hook(lambda *_: self.bring_up_to_date()),
        ]

    def release(self) -> None:
        """Leave the table up to date and as it was found; to be called when the training is over."""
        self.bring_up_to_date()
        for hook in self._hooks:
            hook.remove()
        self._table.sparse = False

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """See `torch.optim.Adam.step`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        weight = self._table.weight
        gradient, weight.grad = weight.grad, None
        super().step()
        weight.grad = gradient
        if gradient is not None:
            with torch.no_grad():
                self._step_rows(gradient.coalesce())
        return loss

    def state_dict(self) -> dict[str, Any]:
        """See `torch.optim.Adam.state_dict`."""
        self.bring_up_to_date()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `torch.optim.Adam.load_state_dict`; the table must be the one that belongs to it."""
        super().load_state_dict(state_dict)
        self._forget()

    @torch.no_grad()
    def bring_up_to_date(self, rows: Tensor | None = None) -> None:
        """Do the steps that rows have waited with.

        Args:
            rows: (N,) distinct rows; None for all.
        """
        if self._began == self._now:
            return
        every = rows is None
        rows = torch.arange(len(self._up_to)) if rows is None else rows
        for part in rows[self._up_to[rows] < self._now].split(_PART):
            if len(part):
                self._catch_up(part)
        if every:
            self._forget()

    @property
    def _state(self) -> dict[str, Tensor]:
        weight = self._table.weight
        state: dict[str, Tensor] = self.state[weight]
        if not state:
            state["step"] = torch.zeros(())
            for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
                state[name] = torch.zeros_like(weight, memory_format=torch.preserve_format)
        return state

    @property
    def _group(self) -> dict[str, Any]:
        return next(g for g in self.param_groups if any(p is self._table.weight for p in g["params"]))

    def _forget(self) -> None:
        """Start to count the steps from here, where all rows are up to date."""
        state = self.state.get(self._table.weight) or {}
        self._began = self._now = int(state.get("step", 0))
        self._up_to.fill_(self._now)
        self._rates = np.empty(LONGEST_WAIT)

    def _step_rows(self, gradient: Tensor) -> None:
        """One step of Adam for the rows of a sparse gradient, as `torch.optim.Adam` documents it."""
        rows, values, state, group = gradient.indices()[0], gradient.values(), self._state, self._group
        self.bring_up_to_date(rows)
        (beta1, beta2), lr = group["betas"], float(group["lr"])
        self._rates[self._now - self._began] = lr / (1 - beta1 ** (self._now + 1))
        self._now += 1
        state["step"].fill_(self._now)
        self._up_to[rows] = self._now
        mean = state["exp_avg"].index_select(0, rows).lerp_(values, 1 - beta1)
        square = state["exp_avg_sq"].index_select(0, rows).mul_(beta2).addcmul_(values, values, value=1 - beta2)
        largest = torch.maximum(state["max_exp_avg_sq"].index_select(0, rows), square)
        for name, moved in (("exp_avg", mean), ("exp_avg_sq", square), ("max_exp_avg_sq", largest)):
            state[name].index_copy_(0, rows, moved)
        bound = largest.sqrt_().div_((1 - beta2**self._now) ** 0.5).add_(group["eps"])
        self._table.weight.index_add_(0, rows, mean.div_(bound), alpha=-lr / (1 - beta1**self._now))
        if self._now <= WARM_UP or self._now - self._began == LONGEST_WAIT:
            self.bring_up_to_date()

    def _catch_up(self, rows: Tensor) -> None:
        state, (beta1, beta2), eps = self._state, self._group["betas"], self._group["eps"]
        since, place = self._up_to[rows].unique(return_inverse=True)
        numbers = [torch.from_numpy(part).to(self._table.weight.dtype) for part in self._nodes(since.numpy())]
        nodes, weights = (part[place].T.unsqueeze(-1) for part in numbers)
        mean, root = state["exp_avg"].index_select(0, rows), state["max_exp_avg_sq"].index_select(0, rows).sqrt_()
        moved = torch.zeros_like(mean)
        for point, weight in zip(nodes, weights, strict=True):
            moved.addcdiv_(weight * mean, eps * point + root)
        self._table.weight.index_add_(0, rows, moved, alpha=-1)
        waited = (self._now - self._up_to[rows]).unsqueeze(1).double()
        state["exp_avg"].index_copy_(0, rows, mean.mul_((beta1**waited).to(mean.dtype)))
        square = state["exp_avg_sq"].index_select(0, rows)
        state["exp_avg_sq"].index_copy_(0, rows, square.mul_((beta2**waited).to(mean.dtype)))
        self._up_to[rows] = self._now

    def _nodes(self, since: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """(R, NODES) nodes and weights of the steps after each of the (R,) given ones."""
        beta1, beta2 = self._group["betas"]
        ahead = np.arange(1, min(HORIZON, self._now - int(since.min())) + 1)
        steps = since[:, None] + ahead
        rates = self._rates[np.minimum(steps, self._now) - 1 - self._began]
        points = np.sqrt(1 - beta2 ** steps.astype(np.float64))
        weights = np.where(steps <= self._now, rates * beta1**ahead * points, 0.0)
        return gauss_nodes(weights, points, NODES)
