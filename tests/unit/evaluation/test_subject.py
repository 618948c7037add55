"""What an evaluation is given: batches that cover a split once, draws that depend on keys alone, ragged numbers."""

import numpy as np
import pytest
import torch
from torch import nn

from attn_lightning.evaluation.subject import Explained, Ragged, Subject, on_device, weights_digest
from support.texts import random_texts

LENGTHS = (5, 1, 9, 3, 2, 7, 7)


@pytest.mark.parametrize(("batch_size", "token_budget"), [(128, 2**16), (2, 2**16), (128, 14), (128, 1)])
def test_batches_cover_the_split_once_within_their_limits(batch_size, token_budget):
    texts = random_texts(LENGTHS)
    batches = list(Subject(nn.Identity(), texts, 2, batch_size=batch_size, token_budget=token_budget).batches())
    assert sorted(row for batch in batches for row in batch.rows.tolist()) == list(range(len(LENGTHS)))
    assert all(len(batch.rows) <= batch_size for batch in batches)
    assert all(batch.mask.numel() <= token_budget or len(batch.rows) == 1 for batch in batches)
    widths = [batch.mask.shape[1] for batch in batches]
    assert widths == sorted(widths, reverse=True)
    for batch in batches:
        for row, line, mask in zip(batch.rows.tolist(), batch.tokens, batch.mask, strict=True):
            assert torch.equal(line[mask], texts.texts[row])


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_segments_have_the_precision_of_the_model_and_words_stay_numbers(kind):
    class Segments:
        lengths = np.array([3, 3])

        def __len__(self):
            return 2

        def __getitem__(self, rows):
            return random_texts((3, 3))[rows]._replace(tokens=torch.zeros(len(rows), 3, 2))

    model = nn.Linear(2, 2).to(kind)
    assert {batch.tokens.dtype for batch in Subject(model, Segments(), 2).batches()} == {kind}
    assert {batch.tokens.dtype for batch in Subject(model, random_texts((3, 3)), 2).batches()} == {torch.int64}


def test_draws_depend_on_seed_and_keys_alone():
    def draw(seed, *keys):
        return torch.rand(3, generator=Subject(nn.Identity(), random_texts((1,)), 2, seed=seed).generator(*keys))

    assert torch.equal(draw(0, 1, 2), draw(0, 1, 2))
    others = [draw(1, 1, 2), draw(0, 2, 1), draw(0, 1), draw(0, 1, 3)]
    assert not any(torch.equal(draw(0, 1, 2), other) for other in others)


def test_a_batch_moves_as_a_whole_and_what_is_missing_stays_missing():
    batch = random_texts((2, 3))[[0, 1]]
    moved = on_device(batch, torch.device("cpu"))
    assert torch.equal(moved.tokens, batch.tokens)
    assert moved.rationale is None


def test_ragged_numbers_are_put_and_padded_by_row_and_survive_a_file(tmp_path):
    lengths = np.array([2, 1, 3])
    scores = Ragged.empty(lengths)
    assert np.isnan(scores.values).all()
    padded = np.array([[5.0, 6.0, 7.0], [1.0, 2.0, 9.0]])
    scores.put(np.array([2, 0]), padded, np.array([[True, True, True], [True, True, False]]))
    assert len(scores) == 3
    np.testing.assert_array_equal(scores[0], [1, 2])
    np.testing.assert_array_equal(scores[1], [np.nan])
    np.testing.assert_array_equal(scores[2], [5, 6, 7])
    np.testing.assert_array_equal(scores.pad(np.array([0, 2])), [[1, 2, 0], [5, 6, 7]])
    scores.save(tmp_path / "scores.npy")
    np.testing.assert_array_equal(Ragged.load(tmp_path / "scores.npy", lengths).values, scores.values)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.npy"]


def test_the_predicted_class_is_the_first_of_equals():
    explained = Explained(np.array([[0.5, 0.5], [0.2, 0.8]]), np.array([0, 1]), {})
    assert explained.predicted.tolist() == [0, 1]


def test_equal_weights_have_one_digest_and_others_have_another():
    torch.manual_seed(0)
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    before = weights_digest(model)
    assert len(before) == 64
    assert weights_digest(other) != before
    other.load_state_dict(model.state_dict())
    assert weights_digest(other) == before
