"""Leave-one-out: what the prediction loses with every single token."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from attn_lightning.evaluation.erasure import Variants
from attn_lightning.evaluation.explainer import Explainer
from attn_lightning.evaluation.subject import ProgressCallback, Ragged, Subject
from attn_lightning.metrics.faithfulness import total_variation
from attn_lightning.metrics.per_example import to_array
from attn_lightning.types import Batch


class LeaveOneOut(Explainer):
    """Total variation distance of the predictions with and without a token, `1/2 sum_c | p_c(x) - p_c(x without t) |`.

    The token is deleted, and encoder and attention run again on the shorter text; a text of one token becomes the
    unknown word (zeros for segments). Scores are in [0, 1].

    Source: Li et al. 2016, https://arxiv.org/abs/1612.08220; the distance as in Jain and Wallace 2019,
    https://aclanthology.org/N19-1357, algorithm 2.
    Cost: n texts of n - 1 tokens for a text of n tokens, those of many documents packed into full batches.
    """

    name: ClassVar[str] = "loo"

    def explain(self, subject: Subject, advance: ProgressCallback) -> Ragged:
        """See `Explainer.explain`."""
        scores = Ragged.empty(subject.examples.lengths)
        for batch in subject.batches():
            mask = to_array(batch.mask)
            scores.put(to_array(batch.rows), _distances(subject, batch, mask), mask)
            advance(len(batch.rows))
        return scores


def _distances(subject: Subject, batch: Batch, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(B, T) scores of a chunk, 0 at padding."""
    documents = np.arange(len(mask))
    variants = Variants(subject, batch)
    # By the same code as the shortened texts, so that a difference is never one of two ways of computing.
    whole = variants.erased(documents, mask)
    owners, places = mask.nonzero()
    distances = np.zeros(mask.shape)
    # The masks of a long document grow with the square of its length: they too are made by the budget.
    size = max(1, subject.token_budget // mask.shape[1])
    for start in range(0, len(owners), size):
        owner, place = owners[start : start + size], places[start : start + size]
        keep = mask[owner]
        keep[np.arange(len(owner)), place] = False
        without = variants.erased(owner, keep)
        distances[owner, place] = total_variation(whole[owner], without)
    return distances
