"""Attacks at test time by words: a few words of a text are replaced by near ones in embedding space.

Greedy and white-box. In every round the gradient of the margin against a class (see `attacks.py`) estimates what each
replacement would gain, the most promising ones are tried by forward passes, and the best is kept if it truly raises
the margin. So the margin never falls, a larger budget contains the result of a smaller one, and no text has more words
replaced than its budget. A neighbor is near in the model's own embedding space; nothing checks grammar or meaning.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from attn_lightning.backbone.protocol import Backbone
from attn_lightning.data.text import UNKNOWN_ID
from attn_lightning.numerics import at_least_float32
from attn_lightning.perturbation.attacks import finite_gradient, margin
from attn_lightning.perturbation.directions import slope
from attn_lightning.perturbation.neighbors import NeighborCache
from attn_lightning.perturbation.sites import clean_pass, from_embeddings
from attn_lightning.types import AttentionOutput

NUM_TRIALS = 8
"""Replacements per round and text that are tried by a forward pass."""


@dataclass(frozen=True)
class Substituted:
    """What an attack by words found.

    Attributes:
        tokens: (B, T) ids.
        logits: (B, C) of them.
        attention: (B, T) of them.
    """

    tokens: Tensor
    logits: Tensor
    attention: Tensor

    def spread(self, rows: Tensor, like: "Substituted") -> "Substituted":
        """These examples at the given rows, (b,), of a larger batch; elsewhere what is there."""
        return Substituted(
            like.tokens.index_copy(0, rows, self.tokens),
            like.logits.index_copy(0, rows, self.logits),
            like.attention.index_copy(0, rows, self.attention),
        )

    def replaced(self, rows: Tensor, other: "Substituted") -> "Substituted":
        """With the given rows, (B,) bool, from another one of the same shape."""
        column = rows.unsqueeze(1)
        return Substituted(
            torch.where(column, other.tokens, self.tokens),
            torch.where(column, other.logits, self.logits),
            torch.where(column, other.attention, self.attention),
        )


@dataclass(frozen=True)
class Task:
    """Texts in the middle of an attack.

    Attributes:
        tokens: (B, T) ids.
        mask: (B, T) bool.
        target: (B,) class to lead away from.
        replacements: (B, T, k) ids that may still be put in, 0 for none.
    """

    tokens: Tensor
    mask: Tensor
    target: Tensor
    replacements: Tensor


@dataclass(frozen=True)
class Vocabulary:
    """Where replacements come from.

    Attributes:
        table: (V, E) word vectors, padding in row 0 and `<unk>` in row 1.
        neighbors: the nearest words that have been looked up.
    """

    table: Tensor
    neighbors: NeighborCache

    def replacements(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, T, k) ids of the neighbors of every word; 0 where nothing may be replaced: padding and `<unk>`."""
        # `<unk>` stands for any rare word, so that it has no neighbors in meaning.
        open_to = mask & (tokens > UNKNOWN_ID)
        found = self.neighbors.look_up(tokens[open_to], self.table)
        neighbors = found.new_zeros(*tokens.shape, found.shape[1])
        neighbors[open_to] = found
        return neighbors


def substitute_words(
    model: Backbone,
    clean: AttentionOutput,
    tokens: Tensor,
    target: Tensor,
    budgets: Tensor,
    vocabulary: Vocabulary,
    token_budget: int,
    num_trials: int = NUM_TRIALS,
) -> list[Substituted]:
    """Raise `max_{c != y} z_c - z_y` by replacing at most some words of every text.

    Runs inside `attn_lightning.backbone.importance.differentiable`.

    Args:
        model: the backbone.
        clean: its pass over the tokens.
        tokens: (B, T) ids.
        target: (B,) class y to lead away from.
        budgets: (B, K) the most words that may be replaced in each text, for K attacks of rising budget.
        vocabulary: where replacements come from.
        token_budget: the most tokens, padding included, of one forward pass.
        num_trials: replacements per round and text that are tried.

    Returns:
        K outcomes, the first for the smallest budget.

    Cost: per round one pass with its gradient and `num_trials` forward passes, for the texts that still have budget
    and gained in the round before; as many rounds as the largest budget.
    """
    state = Substituted(tokens, clean.logits, clean.attention)
    outcomes = [state] * budgets.shape[1]
    replacements = vocabulary.replacements(tokens, clean.mask)
    # Texts that gained in the last round; who gained nothing would find the same replacements again.
    rising = torch.ones_like(target, dtype=torch.bool)
    for spent in range(1, int(budgets.max()) + 1):
        # By the largest budget: smaller ones keep what was found within theirs, so all are one greedy search.
        rising = rising & (budgets.amax(1) >= spent) & (replacements > 0).flatten(1).any(1)
        rows = rising.nonzero().squeeze(1)
        if not len(rows):
            break
        current = Task(state.tokens[rows], clean.mask[rows], target[rows], replacements[rows])
        found, places = _best_trial(model, current, vocabulary.table, token_budget, num_trials)
        # The gradient is only an estimate: kept is what a forward pass confirms.
        rising[rows] = margin(found.logits, target[rows]) > margin(state.logits[rows], target[rows])
        state = state.replaced(rising, found.spread(rows, state))
        # A word is replaced once: the neighbor of a neighbor is not near any more.
        replacements[rows, places] = 0
        outcomes = [old.replaced(rising & (budgets[:, k] >= spent), state) for k, old in enumerate(outcomes)]
    return outcomes


def _best_trial(
    model: Backbone, task: Task, table: Tensor, token_budget: int, num_trials: int
) -> tuple[Substituted, Tensor]:
    """The most harmful of the replacements that promise most, per text, and the (B,) token that it replaces."""
    estimates = estimated_gains(model, task, table).flatten(1)
    # Over all places and neighbors together, since most of the gain of a text often lies at one word.
    promise, chosen = estimates.topk(min(num_trials, estimates.shape[1]), dim=1)
    places = chosen // task.replacements.shape[2]
    words = task.replacements.flatten(1).gather(1, chosen)
    trials = task.tokens.unsqueeze(1).repeat(1, chosen.shape[1], 1)
    trials.scatter_(2, places.unsqueeze(2), words.unsqueeze(2))
    logits, attention = _predictions(model, trials, task.mask, token_budget)
    reached = margin(logits.flatten(0, 1), task.target.repeat_interleave(chosen.shape[1])).view_as(promise)
    best = reached.masked_fill(promise == -torch.inf, -torch.inf).argmax(1)
    each = torch.arange(len(best), device=best.device)
    return Substituted(trials[each, best], logits[each, best], attention[each, best]), places[each, best]


def estimated_gains(model: Backbone, task: Task, table: Tensor) -> Tensor:
    """First-order gain of every replacement, `(e_k - e_t) . d margin / d e_t`.

    Args:
        model: the backbone.
        task: the texts.
        table: (V, E).

    Returns:
        (B, T, k); -inf where nothing may be replaced. One neighbor at a time, so that no (B, T, k, E) is held.
    """
    embeddings = at_least_float32(model.embed(task.tokens)).detach().requires_grad_()
    output = from_embeddings(model, embeddings, task.mask)
    gradient = finite_gradient(slope(margin(output.logits, task.target), embeddings), embeddings)
    own = (gradient * table[task.tokens]).sum(-1)
    gains = torch.stack(
        [(gradient * table[neighbors]).sum(-1) - own for neighbors in task.replacements.unbind(2)], dim=2
    )
    return gains.masked_fill(task.replacements == 0, -torch.inf)


def _predictions(model: Backbone, trials: Tensor, mask: Tensor, token_budget: int) -> tuple[Tensor, Tensor]:
    """(B, m, C) logits and (B, m, T) attention of (B, m, T) texts, in passes that keep to the budget."""
    _, count, width = trials.shape
    masks = mask.unsqueeze(1).expand(-1, count, -1).flatten(0, 1)
    rows = max(1, token_budget // width)
    passes = [
        clean_pass(model, *part) for part in zip(trials.flatten(0, 1).split(rows), masks.split(rows), strict=True)
    ]
    logits, attention = (torch.cat([getattr(each, name) for each in passes]) for name in ("logits", "attention"))
    return logits.unflatten(0, (-1, count)), attention.unflatten(0, (-1, count))
