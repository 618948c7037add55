"""Initial word vectors: random, trained on the training text with fastText, or read from a file of pretrained ones."""

from attn_lightning.data.embeddings.base import Embeddings, RandomEmbeddings, with_random_rows
from attn_lightning.data.embeddings.named import FastText, Glove
from attn_lightning.data.embeddings.pretrained import PretrainedEmbeddings
from attn_lightning.data.embeddings.trained import FastTextEmbeddings

__all__ = [
    "Embeddings",
    "FastText",
    "FastTextEmbeddings",
    "Glove",
    "PretrainedEmbeddings",
    "RandomEmbeddings",
    "with_random_rows",
]
