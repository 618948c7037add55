"""Checkpoints edited, cut off, with bits flipped, NaN among the weights or parts missing: refused, or they predict."""

import copy
import io

import pytest
import torch

from attn_lightning.checkpoint.file import write_checkpoint
from attn_lightning.data.text import TextTokenizer
from attn_lightning.evaluation.prediction import Predictor
from support.checkpoints import save
from support.damage import damaged
from support.strange import spoil

PIECES = (b"PK\x03\x04", b"PK\x05\x06", b"\x80\x02c")
TEXTS = ["a fine film , and a quiet one", "", "grim"]


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """What a checkpoint of a model of three classes holds."""
    folder = tmp_path_factory.mktemp("model")
    path = save(TextTokenizer.train([["a", "fine", "film", "grim"]] * 3), folder)
    return torch.load(path, weights_only=True)


def check(answer):
    """Numbers that can be written down; the names of the classes may have been edited."""
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert sum(answer.attention) == pytest.approx(1, abs=1e-5)


def odd_weights(state, source):
    """Tensors of another shape or type, with numbers that are none, or lost."""
    name = source.choice(list(state))
    value = state[name]
    kind = source.randrange(6)
    if kind == 0:
        del state[name]
    elif kind == 1:
        value.view(-1)[source.randrange(value.numel())] = source.choice((torch.nan, torch.inf, 1e38))
    elif kind == 2:
        state[name] = value[:-1] if value.dim() else value.reshape(1)
    elif kind == 3:
        state[name] = value.to(source.choice((torch.float16, torch.int64, torch.complex64, torch.bool)))
    elif kind == 4:
        state[name] = source.choice((None, 3, "weight", torch.sparse_coo_tensor(size=tuple(value.shape))))
    else:
        state[f"{name}.more"] = value


def test_edited(fuzz, contents, tmp_path):
    """Whole files, sealed or not, with other things in them."""

    def edited(source):
        made = copy.deepcopy(contents)
        if source.random() < 0.3:
            odd_weights(made["state_dict"], source)
        elif source.random() < 0.9:
            tree = made if source.random() < 0.3 else made["attn_lightning"]
            spoil(tree, source)
        path = tmp_path / "edited.ckpt"
        if source.random() < 0.3 and isinstance(made, dict):
            write_checkpoint(made, path)
        else:
            torch.save(made, path)
        for answer in Predictor(path).predict(TEXTS):
            check(answer)

    fuzz(edited, 60)


def test_damaged(fuzz, contents, tmp_path):
    """Bytes changed in files with and without a checksum."""
    plain, sealed = io.BytesIO(), tmp_path / "sealed.ckpt"
    torch.save(contents, plain)
    write_checkpoint(contents, sealed)
    whole = sealed.read_bytes()

    def spoilt(source):
        path = tmp_path / "damaged.ckpt"
        kind = source.randrange(4)
        if kind == 0:
            data = whole
        elif kind == 1:
            place = source.randrange(len(whole))
            data = whole[:place] + bytes([whole[place] ^ (1 << source.randrange(8))]) + whole[place + 1 :]
        else:
            data = damaged(
                source.choice((whole, plain.getvalue())), source, (b"PK\x03\x04", b"PK\x05\x06", b"\x80\x02c")
            )
        path.write_bytes(data)
        answers = Predictor(path).predict(TEXTS)
        assert kind != 1, "a flipped bit of a file with a checksum was not noticed"
        for answer in answers:
            check(answer)

    fuzz(spoilt, 40)
