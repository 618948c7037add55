"""The model: what it is at test time."""

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.default_tokens import DefaultTokens
from attn_lightning.backbone.orthogonal import OrthogonalLSTM
from attn_lightning.backbone.pretrained import Pretrained
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.backbone.transformer import Transformer
from attn_lightning.backbone.word_selector import WordSelector

__all__ = [
    "AttentionClassifier",
    "Backbone",
    "DefaultTokens",
    "OrthogonalLSTM",
    "Pretrained",
    "Transformer",
    "WordSelector",
]
