"""Training methods: what changes only how the model is trained."""

from attn_lightning.methods.attention_perturbation import (
    AttentionAT,
    AttentionIAT,
    AttentionIVAT,
    AttentionRP,
    AttentionVAT,
)
from attn_lightning.methods.base import Differentiates, Method, TrainStep

__all__ = [
    "AttentionAT",
    "AttentionIAT",
    "AttentionIVAT",
    "AttentionRP",
    "AttentionVAT",
    "Differentiates",
    "Method",
    "TrainStep",
]
