"""The contract of an explainer: what gives every token of every example a number, higher where it matters more."""

from typing import ClassVar

from torch import Tensor

from attn_lightning.evaluation.subject import ProgressCallback, Ragged, Subject
from attn_lightning.metrics.per_example import to_array
from attn_lightning.types import Batch


class Explainer:
    """Gives every token a score for the class that the model predicts; its options are arguments of the constructor.

    Attributes:
        name: as `--explainers` takes it.
        is_control: whether it says nothing of the model's reasons (random, uniform, inverted), so that an explanation
            that is no better than it is marked in the tables. A gold rationale is no control: it is the goal.
    """

    name: ClassVar[str]
    is_control: ClassVar[bool] = False

    def unavailable(self, subject: Subject) -> str | None:
        """Why it cannot be had here, "the data has no rationales" for example; None if it can."""
        return None

    def explain(self, subject: Subject, advance: ProgressCallback) -> Ragged:
        """Scores of every token of the split; every number finite or NaN, never set by the batch an example is in.

        Args:
            subject: model and examples.
            advance: to be called with the number of examples finished since the last call.
        """
        scores = Ragged.empty(subject.examples.lengths)
        for batch in subject.batches():
            scores.put(to_array(batch.rows), to_array(self.scores(subject, batch)), to_array(batch.mask))
            advance(len(batch.rows))
        return scores

    def scores(self, subject: Subject, batch: Batch) -> Tensor:
        """(B, T) scores of a batch; an explainer that packs many examples together overrides `explain` instead."""
        raise NotImplementedError
