"""How a model holds under attack at test time: on attention scores, on word embeddings, and by words."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from attn_lightning.backbone.importance import differentiable
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.checks import check_choice, check_numbers
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.attack_curves import CleanBatch, Curve, Curves, Finding, Job, Target
from attn_lightning.evaluation.family import Family, Row
from attn_lightning.evaluation.subject import Explained, ProgressCallback, Subject
from attn_lightning.metrics.measure import Measure, by_name
from attn_lightning.metrics.robustness import AREAS, CURVES
from attn_lightning.perturbation.attacks import (
    NUM_STEPS,
    attack_gradient,
    one_step,
    pgd,
    random_noise,
)
from attn_lightning.perturbation.neighbors import NeighborCache, word_table
from attn_lightning.perturbation.sites import EMBEDDINGS, SCORES, Site, clean_pass, select_rows
from attn_lightning.perturbation.substitution import NUM_TRIALS, Vocabulary, substitute_words
from attn_lightning.types import Batch

logger = logging.getLogger(__name__)

Attack = Literal["random", "one_step", "pgd"]

_CACHED_TOKENS, _FEWEST_TEXTS, _MOST_TEXTS = 2**12, 32, 64
"""Tokens of a batch beyond which a CPU gets slower per token, for its caches are full; texts below which the steps
along them are too small to be fast; and texts beyond which a batch gains nothing but padding (measured on a BiLSTM)."""

SITES = {place.name: place.site for place in (SCORES, EMBEDDINGS)}
"""Where noise can be added, with what makes a `Site` of it."""


class Robustness(Family):
    """Accuracy, share of unchanged predictions and shift of attention under attack, over the strength of the attack.

    `scores` and `embeddings` are attacked by noise of at most epsilon (L2, per example, over its real tokens; see
    `attn_lightning.perturbation.attacks`), `words` by replacing some of them by near ones (see
    `attn_lightning.perturbation.substitution`). An attack leads away from the `prediction` of the unperturbed model or
    from the gold `label`; random noise has no target ("none"). Every curve starts with the clean model at 0, and each
    metric has the mean height of its curve as a row `..._area`.

    Epsilon is in the units of the scores or word vectors of the model at hand. A model can scale them up, so that the
    same epsilon means less to it: look at the attacks by words too, which do not depend on a scale.

    Without words (segments, or a model without a table of word vectors) the rows of `words` are undefined, with 0 valid
    examples, and the log says why; so are rows with the target `label` for examples that have none.

    Cost: one clean pass per batch. Scores cost `attend` only. Embeddings cost, per epsilon and with the default
    attacks, 12 passes through the whole model, 9 of them with a gradient; where label and prediction agree, both
    targets are one attack. Words cost a gradient and `num_trials` passes per replacement.

    Args:
        score_epsilons: radii of the noise on attention scores; empty leaves that place out.
        embedding_epsilons: radii of the noise on word embeddings; empty leaves that place out.
        attacks: among `random`, `one_step`, `pgd`.
        targets: among `prediction`, `label`.
        num_steps: steps of PGD.
        random_start: start PGD from the noise of the random attack instead of from none.
        substitutions: the most words that may be replaced: numbers of words, or shares of the words of a text (below
            1, rounded up), not both; empty leaves words out.
        num_neighbors: the nearest words that may replace a word.
        num_trials: replacements per round that are tried by a forward pass.

    Raises:
        ConfigurationError: an option is out of range.
    """

    name: ClassVar[str] = "robustness"
    heading: ClassVar[str] = (
        "Prediction and attention under white-box attacks at test time, per example; epsilon is an L2 norm."
    )
    measures: ClassVar[Mapping[str, Measure]] = by_name((*AREAS, *CURVES))
    # No explanation is judged here, and a linear model is not attacked.
    uncontrolled: ClassVar[frozenset[str]] = frozenset(measures)

    def __init__(
        self,
        score_epsilons: Sequence[float] = (0.5, 1.0, 2.0, 5.0),
        embedding_epsilons: Sequence[float] = (0.25, 0.5, 1.0, 2.0),
        attacks: Sequence[Attack] = ("random", "one_step", "pgd"),
        targets: Sequence[Target] = ("prediction", "label"),
        num_steps: int = NUM_STEPS,
        random_start: bool = False,
        substitutions: Sequence[float] = (1, 2, 3),
        num_neighbors: int = 8,
        num_trials: int = NUM_TRIALS,
    ) -> None:
        _check_names(self, "attacks", attacks, get_args(Attack))
        _check_names(self, "targets", targets, get_args(Target))
        check_numbers(self, at_least=1, num_steps=num_steps, num_neighbors=num_neighbors, num_trials=num_trials)
        # Rising numbers first: they are finite, which the kinds of substitutions rely on.
        rising = _rising("substitutions", substitutions)
        _check_substitutions(rising)
        if not (score_epsilons or embedding_epsilons or substitutions):
            raise ConfigurationError(
                "Expected at least one of `score_epsilons`, `embedding_epsilons` and `substitutions` of Robustness not "
                "to be empty; leave the family out of the suite to measure nothing."
            )
        self.score_epsilons = _rising("score_epsilons", score_epsilons)
        self.embedding_epsilons = _rising("embedding_epsilons", embedding_epsilons)
        self.attacks = tuple(attacks)
        self.targets = tuple(targets)
        self.num_steps = num_steps
        self.random_start = random_start
        # A number of words is named as a whole number in the rows, whatever the configuration made of it.
        self.substitutions = tuple(int(value) if value >= 1 else value for value in rising)
        self.num_neighbors = num_neighbors
        self.num_trials = num_trials

    def run(self, subject: Subject, explained: Explained, advance: ProgressCallback) -> list[Row]:
        """See `Family.run`."""
        curves = self._curves(len(subject.examples))
        # Once for all batches, as each change of mode goes through every module.
        with differentiable(subject.model):
            vocabulary = self._vocabulary(subject) if self.substitutions else None
            small = _cached(subject)
            for batch in small.batches():
                clean = CleanBatch(batch, clean_pass(subject.model, batch.tokens, batch.mask))
                clean.record_clean(curves)
                for finding in self._findings(subject, clean, vocabulary, small.token_budget):
                    clean.record(curves, finding)
                advance(len(batch.rows))
        found = list(curves.values())
        # Areas first: they sum the curves up, of which there are many points.
        return [row for curve in found for row in curve.areas()] + [row for curve in found for row in curve.points()]

    def _curves(self, num_examples: int) -> Curves:
        kinds = [("random", "none")] if "random" in self.attacks else []
        kinds += [(attack, target) for attack in self._aimed() for target in self.targets]
        strengths: dict[tuple[str, str, str], tuple[str, tuple[float, ...]]] = {
            (where, *kind): ("epsilon", epsilons) for where, epsilons in self._epsilons().items() for kind in kinds
        }
        # Words know no random attack: a random replacement is no noise of a given size.
        for target in self.targets if self.substitutions else ():
            strengths["words", "substitution", target] = ("budget", self.substitutions)
        return {
            key: Curve(dict(zip(("where", "attack", "target"), key, strict=True)), axis, values, num_examples)
            for key, (axis, values) in strengths.items()
        }

    def _aimed(self) -> list[str]:
        """The attacks that look at the model."""
        return [attack for attack in self.attacks if attack != "random"]

    def _epsilons(self) -> dict[str, tuple[float, ...]]:
        both = {"scores": self.score_epsilons, "embeddings": self.embedding_epsilons}
        return {where: epsilons for where, epsilons in both.items() if epsilons}

    def _vocabulary(self, subject: Subject) -> Vocabulary | None:
        """Where replacements come from; None, and a warning with the reason, where there are none."""
        reason = "the segments of the data are not words"
        if subject.erased is not None:
            try:
                table = word_table(subject.model).detach()
                return Vocabulary(table, NeighborCache(table, self.num_neighbors))
            except ConfigurationError as error:
                reason = str(error)
        logger.warning("robustness: the rows of word substitution stay undefined: %s", reason)
        return None

    def _findings(
        self, subject: Subject, clean: CleanBatch, vocabulary: Vocabulary | None, trial_budget: int
    ) -> Iterator[Finding]:
        jobs = clean.jobs(self.targets, subject.token_budget)
        for where, epsilons in self._epsilons().items():
            # One site for all attacks of a place: what they share of the clean pass is made once.
            site = SITES[where](subject.model, clean.output)
            draws = _draws(subject, clean.batch, site, list(SITES).index(where))
            if "random" in self.attacks:
                for level, epsilon in enumerate(epsilons, 1):
                    shaken = random_noise(site, epsilon, draws)
                    yield Finding(where, "random", level, clean.everything(), shaken.logits, shaken.attention)
            # Examples whose two targets are one class are attacked once, for both; see `CleanBatch.jobs`.
            for job in jobs if self._aimed() else ():
                part = SITES[where](subject.model, select_rows(clean.output, job.rows))
                yield from self._climb(where, epsilons, job, part, draws[job.rows])
        if vocabulary is not None:
            for job in jobs:
                yield from self._replace(subject.model, clean, vocabulary, job, trial_budget)

    def _climb(self, where: str, epsilons: Sequence[float], job: Job, site: Site, draws: Tensor) -> Iterator[Finding]:
        """The attacks that look at the model; the gradient without noise serves all of them."""
        # At no noise, where every radius and both attacks begin.
        _, gradient = attack_gradient(site, job.classes, site.noiseless)
        for level, epsilon in enumerate(epsilons, 1):
            found = one_step(site, job.classes, epsilon, draws, gradient)
            if "one_step" in self.attacks:
                yield Finding(where, "one_step", level, job, found.logits, found.attention)
            if "pgd" in self.attacks:
                found = pgd(
                    site,
                    job.classes,
                    epsilon,
                    draws,
                    num_steps=self.num_steps,
                    random_start=self.random_start,
                    gradient=gradient,
                    weaker=found,
                )
                yield Finding(where, "pgd", level, job, found.logits, found.attention)

    def _replace(
        self, model: Backbone, clean: CleanBatch, vocabulary: Vocabulary, job: Job, trial_budget: int
    ) -> Iterator[Finding]:
        outcomes = substitute_words(
            model,
            select_rows(clean.output, job.rows),
            clean.batch.tokens[job.rows],
            job.classes,
            word_budgets(clean.batch.mask[job.rows].sum(1), self.substitutions),
            vocabulary,
            trial_budget,
            self.num_trials,
        )
        for level, found in enumerate(outcomes, 1):
            yield Finding("words", "substitution", level, job, found.logits, found.attention)


def _cached(subject: Subject) -> Subject:
    """On a CPU with smaller batches: every attack takes many passes, and they are fast while its caches hold them."""
    if subject.device.type != "cpu":
        return subject
    longest = int(np.max(subject.examples.lengths, initial=1))
    budget = min(subject.token_budget, max(_CACHED_TOKENS, _FEWEST_TEXTS * longest))
    return replace(subject, batch_size=min(subject.batch_size, _MOST_TEXTS), token_budget=budget)


def word_budgets(lengths: Tensor, substitutions: Sequence[float]) -> Tensor:
    """The most words that may be replaced in every text.

    Args:
        lengths: (B,) words.
        substitutions: K numbers of words, or shares below 1, rounded up.

    Returns:
        (B, K) int64.
    """
    allowed = torch.tensor(substitutions, dtype=torch.float64, device=lengths.device).expand(len(lengths), -1)
    # Less a little, as 0.07 * 100 is above 7 in floating point.
    shares = (allowed * lengths.unsqueeze(1) - 1e-9).ceil()
    return torch.where(allowed < 1, shares, allowed).long()


def _draws(subject: Subject, batch: Batch, site: Site, place: int) -> Tensor:
    """(B, T, ...) standard normal numbers that depend on the seed, the place and the example alone; 0 without room."""
    draws = torch.zeros(site.noiseless.shape)
    for line, row, inside in zip(draws, batch.rows.tolist(), site.room.cpu(), strict=True):
        # By row of the split: neither the batch nor a change of the token budget moves an attack.
        line[inside] = torch.empty_like(line[inside]).normal_(generator=subject.generator(row, place))
    return draws.to(site.noiseless)


def _rising(name: str, values: Sequence[float]) -> tuple[float, ...]:
    """The values in rising order, once each."""
    for value in values:
        check_numbers("Robustness", above=0, advice="the clean model at 0 is always measured", **{name: value})
    # Rising, as a curve is drawn and its area taken from left to right.
    return tuple(sorted({float(value) for value in values}))


def _check_names(owner: object, name: str, values: Sequence[str], known: Sequence[str]) -> None:
    # No name at all would measure nothing, which is an answer that nobody asks for.
    for value in values or ("",):
        check_choice(owner, choices=known, **{name: value})


def _check_substitutions(substitutions: Sequence[float]) -> None:
    counts = [value for value in substitutions if value >= 1]
    if (counts and len(counts) < len(substitutions)) or any(count != int(count) for count in counts):
        raise ConfigurationError(
            "Expected `substitutions` of Robustness to be whole numbers of words or shares below 1, but got "
            f"{list(substitutions)}; use one kind."
        )
