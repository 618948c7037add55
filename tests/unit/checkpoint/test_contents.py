"""What a checkpoint carries beside the weights."""

import pytest
import torch

from attn_lightning.checkpoint import (
    FORMAT,
    add_checkpoint_contents,
    check_layout,
    check_order,
    check_same_data,
    checkpoint_contents,
    checkpoint_spec,
    read_checkpoint,
)
from attn_lightning.errors import ConfigurationError
from attn_lightning.types import DataSpec

SPEC = DataSpec(3, 11, 4, ("a", "b", "c"))


@pytest.fixture
def contents() -> dict:
    checkpoint = {"state_dict": {"weight": torch.arange(6.0)}}
    add_checkpoint_contents(checkpoint, SPEC, '{"format": 1}', [1.0, 2.0, 3.0])
    return checkpoint


def test_the_spec_survives_a_file(tmp_path, contents):
    torch.save(contents, tmp_path / "a.ckpt")
    read = read_checkpoint(tmp_path / "a.ckpt")
    assert checkpoint_spec(read) == SPEC
    assert checkpoint_contents(read)["class_weights"] == [1.0, 2.0, 3.0]
    assert torch.equal(read["state_dict"]["weight"], torch.arange(6.0))


def test_word_vectors_do_not_travel_twice(contents):
    with_weights = DataSpec(2, 5, 4, ("a", "b"), torch.ones(5, 4))
    add_checkpoint_contents(contents, with_weights, None, None)
    assert checkpoint_spec(contents).embedding_weights is None


def test_foreign_checkpoint():
    for foreign in ({}, {"attn_lightning": 3}, {"attn_lightning": {}}):
        with pytest.raises(ConfigurationError, match="checkpoint of attn_lightning"):
            checkpoint_contents(foreign)


def test_another_format(contents):
    contents["attn_lightning"]["format"] = FORMAT + 1
    with pytest.raises(ConfigurationError, match=f"format {FORMAT + 1}"):
        checkpoint_spec(contents)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_classes", 1),
        ("vocabulary_size", "many"),
        ("embedding_size", 2**70),
        ("label_names", ["a", "b"]),
        ("label_names", [1, 2, 3]),
        ("segment_shape", [0]),
        ("num_default_tokens", -1),
        ("tokenizer", 3),
        ("class_weights", [1.0, float("nan"), 1.0]),
        ("class_weights", [1.0]),
        ("vocabulary_size", None),
    ],
)
def test_an_edited_entry_is_named(contents, name, value):
    contents["attn_lightning"][name] = value
    with pytest.raises(ConfigurationError, match=f"`{name}` of the checkpoint"):
        checkpoint_contents(contents)


def test_an_entry_that_is_missing_is_named_but_for_later_ones(contents):
    del contents["attn_lightning"]["num_default_tokens"]
    assert checkpoint_spec(contents).num_default_tokens == 0
    del contents["attn_lightning"]["tokenizer"]
    with pytest.raises(ConfigurationError, match="`tokenizer` of the checkpoint"):
        checkpoint_contents(contents)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pytorch-lightning_version", None),
        ("pytorch-lightning_version", "much"),
        ("pytorch-lightning_version", 2.6),
        ("state_dict", None),
        ("state_dict", {3: torch.zeros(1)}),
        ("state_dict", {"weight": torch.sparse_coo_tensor(size=(2, 2))}),
        ("hyper_parameters", 3),
        ("hyper_parameters", {1: 2}),
    ],
)
def test_a_part_that_lightning_could_not_read_is_named(contents, name, value):
    whole = {**contents, "pytorch-lightning_version": "2.6.0.post0", "hyper_parameters": {}}
    check_layout(whole)
    with pytest.raises(ConfigurationError, match=f"`{name}` of the checkpoint"):
        check_layout({**whole, name: value})


def test_the_same_classes_in_another_order_are_refused():
    """Every prediction would be counted for the other class; other names may just be other words."""
    check_order(["no", "yes"], ("no", "yes"))
    check_order(["no", "yes"], ("0", "1"))
    with pytest.raises(ConfigurationError, match=r"the classes no, yes in this order, .* got yes, no"):
        check_same_data(DataSpec(2, 5, 3, ("no", "yes")), DataSpec(2, 5, 3, ("yes", "no")))
