"""States on disk: each text once, exactly what was computed."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attn_lightning.backbone.states import StateStore, keys_of, write


@pytest.mark.parametrize("half", [False, True])
def test_what_was_written_is_read(tmp_path: Path, half: bool) -> None:
    torch.manual_seed(0)
    table, calls = torch.randn(9, 4), []

    def encode(tokens: Tensor, mask: Tensor, second: Tensor | None = None) -> Tensor:
        calls.append(len(tokens))
        return table[tokens] * mask.unsqueeze(-1)

    tokens = torch.tensor([[3, 4, 5], [6, 0, 0], [6, 0, 0]])
    mask = tokens > 0
    assert (
        write(tmp_path / "a" / "states.arrow", [(tokens, mask, None), (tokens[:1], mask[:1], None)], encode, half) == 2
    )
    assert calls == [2], "equal texts are encoded once"
    store = pickle.loads(pickle.dumps(StateStore(tmp_path / "a" / "states.arrow", 4)))
    keys = keys_of(tokens, mask)
    assert len(store) == 2
    assert keys[1] == keys[2] in store
    assert keys_of(tokens[:1, :2], mask[:1, :2])[0] not in store
    expected = encode(tokens, mask)
    torch.testing.assert_close(store.fetch(keys, mask), expected, atol=2e-3 if half else 0, rtol=0)
    behind = torch.tensor([[False, True, False, False]])
    assert torch.equal(store.fetch(keys[1:2], behind)[0, 1] != 0, torch.ones(4, dtype=torch.bool))
