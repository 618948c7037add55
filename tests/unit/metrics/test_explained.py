"""What an explainer is judged by, against lists."""

import pytest
import torch

from attn_lightning.metrics.explained import explained_measures, explained_metrics, selected_only

SELECTION = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 0], [1, 1, 1, 0]]).bool()
RATIONALE = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]]).bool()


def test_selected_words_are_cut_out_in_their_order() -> None:
    tokens, mask = selected_only(torch.tensor([[5, 6, 7, 8], [1, 2, 3, 0], [4, 3, 2, 1]]), SELECTION)
    assert tokens.tolist() == [[6, 8, 0], [1, 0, 0], [4, 3, 2]]
    assert mask.tolist() == [[True, True, False], [True, False, False], [True, True, True]]
    segments, _ = selected_only(torch.arange(24.0).reshape(3, 4, 2), SELECTION)
    assert segments.tolist()[0] == [[2.0, 3.0], [6.0, 7.0], [0.0, 0.0]]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_shares_are_those_of_a_count_whatever_the_batches(size: int) -> None:
    metrics = explained_metrics(marked=True)
    student, teacher, selected = torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), torch.tensor([1, 0, 0])
    for rows in torch.arange(3).split(size):
        metrics.update(
            student=student[rows],
            teacher=teacher[rows],
            selected=selected[rows],
            selection=SELECTION[rows],
            rationale=RATIONALE[rows],
        )
    found = {name: value.item() for name, value in metrics.compute().items()}
    assert found["teacher_agreement_mean"] == pytest.approx(2 / 3)
    assert found["post_hoc_accuracy_mean"] == pytest.approx(1 / 3)
    assert found["evidence_recall_mean"] == pytest.approx((1 / 2 + 1) / 2), "a text without a mark does not count"
    assert found["evidence_recall_n_valid"] == 2
    assert set(found) == set(explained_measures())


def test_data_without_marks_has_no_recall() -> None:
    metrics = explained_metrics(marked=False)
    metrics.update(student=torch.tensor([0]), teacher=torch.tensor([0]), selected=torch.tensor([1]))
    assert set(metrics.compute()) == {name for name in explained_measures() if not name.startswith("evidence")}
