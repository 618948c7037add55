"""Adam with amsgrad over a table of word vectors, without a pass over the whole table at every step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from attn_lightning.optimization.idle import FIRST, IdleSteps, idle_move

_CHUNK = 256
"""Rows at once: what is computed of them stays in a cache, and its memory is not asked of the system anew."""


class WaitingRows:
    """The rows of a table under Adam, each of which does the steps that it waited with when it is read.

    While it is attached, looking words up brings their rows up to date first, and the table's `state_dict` all rows.
    Whoever reads `table.weight` in another way calls `bring_up_to_date` before. A copy of the table has a copy of this.

    Args:
        table: on a CPU, all rows up to date.
        state: the moments of its weight, as torch's Adam keeps them.
        group: of the weight: betas and eps.
    """

    def __init__(self, table: nn.Embedding, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        self._table, self._state, self._betas, self._eps = table, state, group["betas"], float(group["eps"])
        # What the last rows read held, since most often the same ones learn next.
        self._nothing: tuple[Tensor, list[Tensor]] = (torch.empty(0, dtype=torch.int64), [])
        # Two times per row, so that reading moves the row alone: its moments are written once, when it learns.
        self._read_at = torch.empty(len(table.weight), dtype=torch.int64)
        self._learned_at = torch.empty_like(self._read_at)
        self._begin()
        # Bound methods: a copy of the table takes its own copy of this along, whose rows wait as these do.
        self._hooks = [
            table.register_forward_pre_hook(self._before_reading),
            table.register_state_dict_pre_hook(self._before_state),
            table.register_load_state_dict_pre_hook(self._before_state),
        ]

    def detach(self) -> None:
        """Leave the table up to date and without hooks."""
        self.bring_up_to_date()
        for hook in self._hooks:
            hook.remove()

    @torch.inference_mode(False)
    @torch.no_grad()
    def read(self, rows: Tensor) -> None:
        """Bring rows up to date.

        Args:
            rows: (R,) distinct ones, sorted.
        """
        if self._steps.now == self._steps.began:
            return
        vectors, mean, largest = (tensor.index_select(0, rows) for tensor in self._parts)
        vectors.sub_(self._moved(rows, mean, largest))
        self._table.weight.index_copy_(0, rows, vectors)
        self._read_at[rows] = self._steps.now
        self._last = rows, [vectors, mean, largest]

    @torch.no_grad()
    def learn(self, gradient: Tensor, rate: float) -> None:
        """One step of torch's fused Adam for the rows of a sparse gradient.

        Args:
            gradient: (V, E) sparse, of rows that were read since the last step; a row may stand in it several times.
            rate: the learning rate.
        """
        rows, places = gradient._indices()[0].unique(return_inverse=True)
        assert bool((self._read_at[rows] == self._steps.now).all()), "a row learns that was not read before"
        slope = gradient._values().new_zeros(len(rows), self._table.embedding_dim)
        slope.index_add_(0, places, gradient._values())
        # Most often these are the rows that were read for the only pass of this step.
        read, found = self._last
        known = torch.equal(read, rows)
        vectors, mean, largest = found if known else (tensor.index_select(0, rows) for tensor in self._parts)
        square = self._square.index_select(0, rows)
        waited = self._steps.now - self._learned_at[rows]
        mean.mul_(_power(self._betas[0], waited, mean.dtype))
        square.mul_(_power(self._betas[1], waited, mean.dtype))
        self._adam(vectors, slope, mean, square, largest, rate)
        for kept, moved in zip((*self._parts, self._square), (vectors, mean, largest, square), strict=True):
            kept.index_copy_(0, rows, moved)
        self._steps.add(rate)
        self._read_at[rows] = self._learned_at[rows] = self._steps.now
        self._last = self._nothing
        if self._steps.full:
            self.bring_up_to_date()

    @torch.no_grad()
    def bring_up_to_date(self) -> None:
        """Do all steps that any row has waited with."""
        if self._steps.now == self._steps.began:
            return
        weight, mean, largest = self._parts
        for first in range(0, len(mean), _CHUNK):
            part = slice(first, first + _CHUNK)
            rows = torch.arange(first, min(first + _CHUNK, len(mean)))
            weight[part].sub_(self._moved(rows, mean[part], largest[part]))
            waited = self._steps.now - self._learned_at[part]
            for moment, beta in zip((mean, self._square), self._betas, strict=True):
                moment[part].mul_(_power(beta, waited, moment.dtype))
        self._begin()

    def _moved(self, rows: Tensor, mean: Tensor, largest: Tensor) -> Tensor:
        since = self._read_at.index_select(0, rows)
        coefficients = self._steps.since(since)
        # The moments are those of the step in which the row learned, which it may have been read after.
        faded = _power(self._betas[0], since - self._learned_at.index_select(0, rows), mean.dtype)
        coefficients[:, :1].mul_(faded)
        return idle_move(mean, largest, coefficients)

    def _adam(self, vectors: Tensor, slope: Tensor, mean: Tensor, square: Tensor, largest: Tensor, rate: float) -> None:
        beta1, beta2 = self._betas
        torch._fused_adam_(
            [vectors],
            [slope],
            [mean],
            [square],
            [largest],
            [self._state["step"].add_(1)],
            amsgrad=True,
            beta1=beta1,
            beta2=beta2,
            lr=rate,
            weight_decay=0.0,
            eps=self._eps,
            maximize=False,
        )

    @property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self._table.weight, self._state["exp_avg"], self._state["max_exp_avg_sq"]

    @property
    def _square(self) -> Tensor:
        return self._state["exp_avg_sq"]

    def _begin(self) -> None:
        """Count the steps from here, where all rows are up to date."""
        now = int(self._state["step"])
        self._steps = IdleSteps(now, self._betas, self._eps, self._table.weight.dtype)
        self._read_at.fill_(now)
        self._learned_at.fill_(now)
        self._last = self._nothing

    def _before_reading(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        # Before the words are sorted: outside of an epoch nothing ever waits.
        if self._steps.now > self._steps.began:
            self.read(inputs[0].unique())

    def _before_state(self, *_: object) -> None:
        self.bring_up_to_date()


def _power(beta: float, exponents: Tensor, dtype: torch.dtype) -> Tensor:
    """(R, 1) powers, rounded once."""
    powers: Tensor = torch.pow(beta, exponents.double()).to(dtype).unsqueeze(1)
    return powers


class RowAdam(torch.optim.Adam):
    """Adam with amsgrad whose table of word vectors moves row by row; all other parameters as torch's fused Adam does.

    Equal to torch's fused Adam within rounding: a row learns by torch's own kernel, and how far it moves
    while it waits is off by 1e-5 of that at most, by less than 1e-7 with gradients above 1e-6 (see `idle`). Its
    `state_dict` is that of torch's, and each goes on with the other's.

    Before `attach` and after `release` it is torch's Adam. In between the table's gradients are sparse, and its rows
    may be behind: see `WaitingRows`.

    Args:
        groups: of parameters; that of the table without weight decay, which would move every row at every step.
        table: on a CPU.
        lr: step size of groups that have none of their own.

    Attributes:
        table: the word vectors.

    Cost: of a step that of its own distinct words, instead of nine passes over the table.
    """

    def __init__(self, groups: list[dict[str, Any]], table: nn.Embedding, lr: float) -> None:
        super().__init__(groups, lr=lr, amsgrad=True, fused=True)
        self.table = table
        self._attached = False
        self._rows: WaitingRows | None = None

    def attach(self) -> None:
        """Let rows wait from here on, once the first steps are done."""
        self._attached = True
        self._choose_gradients()

    def release(self) -> None:
        """Leave the table up to date and as it was found."""
        self._attached = False
        self._end_waits()
        self._choose_gradients()

    def bring_up_to_date(self) -> None:
        """Let no row be behind."""
        if self._rows is not None:
            self._rows.bring_up_to_date()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """See `torch.optim.Adam.step`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        weight = self.table.weight
        gradient = weight.grad
        if gradient is None:
            super().step()
        elif not gradient.is_sparse:
            self._end_waits()
            super().step()
            self._choose_gradients()
        else:
            weight.grad = None
            super().step()
            weight.grad = gradient
            group = next(g for g in self.param_groups if any(p is weight for p in g["params"]))
            if self._rows is None:
                self._rows = WaitingRows(self.table, self.state[weight], group)
            self._rows.learn(gradient, float(group["lr"]))
        return loss

    def state_dict(self) -> dict[str, Any]:
        """See `torch.optim.Adam.state_dict`."""
        self.bring_up_to_date()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `torch.optim.Adam.load_state_dict`; the table must be the one that belongs to it."""
        self._end_waits()
        super().load_state_dict(state_dict)
        self._choose_gradients()

    def _choose_gradients(self) -> None:
        # Dense ones in the first steps, in which no row waits.
        state: dict[str, Tensor] = self.state.get(self.table.weight) or {}
        self.table.sparse = self._attached and int(state.get("step", 0)) >= FIRST

    def _end_waits(self) -> None:
        if self._rows is not None:
            self._rows.detach()
            self._rows = None
