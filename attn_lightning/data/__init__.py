"""Data modules and everything between a file and a batch."""

from attn_lightning.data.corpora import AG, IMDB, SST, HateXplain, Movies, News, TextFiles
from attn_lightning.data.datamodule import TextDataModule
from attn_lightning.data.embeddings import FastTextEmbeddings, PretrainedEmbeddings, RandomEmbeddings
from attn_lightning.data.planted import Planted

__all__ = [
    "AG",
    "IMDB",
    "SST",
    "FastTextEmbeddings",
    "HateXplain",
    "Movies",
    "News",
    "Planted",
    "PretrainedEmbeddings",
    "RandomEmbeddings",
    "TextDataModule",
    "TextFiles",
]
