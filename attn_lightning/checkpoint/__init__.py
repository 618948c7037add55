"""Checkpoints: what they carry, how their files are written and checked, and whose classes they may name."""

from attn_lightning.checkpoint.contents import (
    FORMAT,
    add_checkpoint_contents,
    check_finite,
    check_layout,
    check_order,
    check_same_data,
    checkpoint_contents,
    checkpoint_spec,
    describe_backbone,
    make_weights_only,
)
from attn_lightning.checkpoint.file import read_checkpoint, write_checkpoint

__all__ = [
    "FORMAT",
    "add_checkpoint_contents",
    "check_finite",
    "check_layout",
    "check_order",
    "check_same_data",
    "checkpoint_contents",
    "checkpoint_spec",
    "describe_backbone",
    "make_weights_only",
    "read_checkpoint",
    "write_checkpoint",
]
