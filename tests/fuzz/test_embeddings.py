"""Files of word vectors, strange and damaged: finite vectors for the words of the vocabulary, or refused."""

import gzip
import io

import numpy as np
import pytest
import torch

from attn_lightning.data.embeddings import PretrainedEmbeddings
from support.damage import damaged

VOCABULARY = ["<pad>", "<unk>", "oak", "elm", "New York", "很", "\ud83d"]
PIECES = (b"\n", b" ", b"nan", b"inf", b"1e99", b"-", b"\x00", b"\xff", b"oak", b"5 3\n", b"9" * 400, b"\t", b"\r")


def text(source):
    words = source.sample(["oak", "elm", "New York", "很", "7", ".", "a b"], source.randint(1, 6))
    lines = [" ".join([word, *(f"{source.uniform(-2, 2):.3f}" for _ in range(3))]) for word in words]
    return "\n".join([*source.choice(([], [f"{len(words)} 3"])), *lines]).encode()


def archive(source):
    words = np.array(["oak", "elm", "x"], dtype=source.choice(("U", "U", "U", "S", object)))
    shape, kind = source.choice(((3, 3), (3, 3), (2, 3), (3,), (3, 0))), source.choice(("f4", "f8", "i8", "U5", "c8"))
    value = source.choice((1, 2, float("nan"), 1e99) if kind in ("f4", "f8") else (1, 2))
    with np.errstate(over="ignore"):
        vectors = np.full(shape, value).astype(kind)
    buffer = io.BytesIO()
    arrays = {"words": words, source.choice(("vectors", "vectors", "vectors", "vecs")): vectors}
    source.choice((np.savez, np.savez_compressed))(buffer, **arrays)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """fastText models with and without character n-grams, as bytes."""
    import fasttext

    folder, made = tmp_path_factory.mktemp("models"), []
    (folder / "text").write_text("oak elm snow rain\n" * 30)
    for maxn in (0, 3):
        model = fasttext.train_unsupervised(
            str(folder / "text"),
            dim=3,
            minn=min(maxn, 2),
            maxn=maxn,
            bucket=20,
            minCount=1,
            thread=1,
            epoch=1,
            verbose=0,
        )
        model.save_model(str(folder / "model.bin"))
        made.append((folder / "model.bin").read_bytes())
    return made


def test_vectors(fuzz, models, tmp_path):
    def vectors(source):
        kind = source.choice((".vec", ".txt", ".txt.gz", ".npz", ".bin", ".bin", ".bin.gz"))
        made = {".npz": archive, ".bin": lambda source: source.choice(models), ".bin.gz": lambda source: models[0]}
        data = made.get(kind, text)(source)
        if source.random() < 0.7:
            data = damaged(data, source, PIECES)
        if kind.endswith(".gz"):
            data = gzip.compress(data)
            data = damaged(data, source) if source.random() < 0.2 else data
        path = tmp_path / f"vectors{kind}"
        path.write_bytes(data)
        try:
            dimension = source.choice((None, None, 3, 4))
            embeddings = PretrainedEmbeddings(path, dimension)
            with np.errstate(all="raise"):
                table = embeddings.build(VOCABULARY, lambda: iter(()), tmp_path / "cache", 0)
            assert table.shape == (len(VOCABULARY), embeddings.dimension)
            assert torch.isfinite(table).all()
        finally:
            path.unlink()

    fuzz(vectors, 100)
