"""Data modules and everything between a file and a batch.

A new data set is three files: a module in this folder (or a class in `corpora`), `experiments/data/<name>.yaml`, and a
test. It needs no line here: every module of the folder is imported below, so that the command line knows its data by
their short names. The names that are written out are for readers and type checkers.
"""

from lightning.pytorch import LightningDataModule

from attn_lightning.data.cifar import CifarMosaics
from attn_lightning.data.corpora import AG, IMDB, SST, HateXplain, Movies, News, TextFiles
from attn_lightning.data.datamodule import TextDataModule
from attn_lightning.data.embeddings import FastText, FastTextEmbeddings, Glove, PretrainedEmbeddings, RandomEmbeddings
from attn_lightning.data.pairs import FEVER, SNLI, BAbI, MultiRC
from attn_lightning.data.planted import Planted
from attn_lightning.data.sdc import Blobs, Ellipses, ErrorMode
from attn_lightning.discovery import public_classes

__all__ = [
    "AG",
    "FEVER",
    "IMDB",
    "SNLI",
    "SST",
    "BAbI",
    "Blobs",
    "CifarMosaics",
    "Ellipses",
    "ErrorMode",
    "FastText",
    "FastTextEmbeddings",
    "Glove",
    "HateXplain",
    "Movies",
    "MultiRC",
    "News",
    "Planted",
    "PretrainedEmbeddings",
    "RandomEmbeddings",
    "TextDataModule",
    "TextFiles",
]

_found = public_classes(__name__, LightningDataModule)
globals().update(_found)
__all__ += [name for name in _found if name not in __all__]
