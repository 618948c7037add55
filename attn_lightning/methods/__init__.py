"""Training methods: what changes only how the model is trained.

A new method is three files: a module in this folder with its class, `experiments/method/<name>.yaml` with its options,
and a test of its formula (`tests/contract` holds it to the rest by itself). It needs no line here: every module of the
folder is imported below, so that the command line knows its methods by their short names. The names that are written
out are for readers and type checkers.
"""

from attn_lightning.discovery import public_classes
from attn_lightning.methods.adversary import ModelConsistentAdversary
from attn_lightning.methods.attention_perturbation import (
    AttentionAT,
    AttentionIAT,
    AttentionIVAT,
    AttentionRP,
    AttentionVAT,
)
from attn_lightning.methods.base import Differentiates, Method
from attn_lightning.methods.baselines import Diversity, RationaleSupervision
from attn_lightning.methods.bottleneck import InformationBottleneck
from attn_lightning.methods.combined import Combined, Scheduled
from attn_lightning.methods.explainers import L2X, VIBI
from attn_lightning.methods.instance_weighting import InstanceWeighting
from attn_lightning.methods.random_pretraining import RandomAttentionPretraining
from attn_lightning.methods.relation import Relation
from attn_lightning.methods.selective import HardAttention, Hybrid, MarginalLikelihood
from attn_lightning.methods.sparsity import EntropyPenalty, MaxPenalty, TsallisPenalty
from attn_lightning.methods.word_perturbation import WordAT, WordIAT, WordIVAT, WordRP, WordVAT
from attn_lightning.step import TrainStep

__all__ = [
    "L2X",
    "VIBI",
    "AttentionAT",
    "AttentionIAT",
    "AttentionIVAT",
    "AttentionRP",
    "AttentionVAT",
    "Combined",
    "Differentiates",
    "Diversity",
    "EntropyPenalty",
    "HardAttention",
    "Hybrid",
    "InformationBottleneck",
    "InstanceWeighting",
    "MarginalLikelihood",
    "MaxPenalty",
    "Method",
    "ModelConsistentAdversary",
    "RandomAttentionPretraining",
    "RationaleSupervision",
    "Relation",
    "Scheduled",
    "TrainStep",
    "TsallisPenalty",
    "WordAT",
    "WordIAT",
    "WordIVAT",
    "WordRP",
    "WordVAT",
]

_found = public_classes(__name__, Method)
globals().update(_found)
__all__ += [name for name in _found if name not in __all__]
