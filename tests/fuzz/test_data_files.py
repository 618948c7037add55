"""Data files of every format, strange and damaged: read and prepared, or refused in one sentence."""

import csv
import gzip
import io
import json
import shutil

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attn_lightning.data.corpora import TextFiles
from attn_lightning.data.embeddings import RandomEmbeddings
from attn_lightning.data.formats import EXTENSIONS, FileOptions
from attn_lightning.data.labels import Labels
from attn_lightning.data.records import Columns, records
from attn_lightning.data.sources import from_files
from support.damage import damaged

WORDS = (
    "fine",
    "grim",
    "a",
    "<b>",
    "n't",
    "",
    " ",
    "\ud83d",
    "\x00",
    "很好看",
    "ที่",
    "é" * 50,
    "1e999",
    "-LRB-",
    "\u2028",
)
LABELS = (
    0,
    1,
    "0",
    "1.0",
    "+1",
    -1,
    "yes",
    " no ",
    True,
    0.5,
    None,
    float("nan"),
    float("inf"),
    2**70,
    "",
    "\udcff",
    [1],
)
MARKS = (0, 1, 0.67, "1", -1, 300, None, float("inf"), True, 10**400, [0])
PIECES = (
    *tuple(rb"""; , " ' \ \ud83d { } [ ] null NaN Infinity 1e999 -0 __label__""".split()),
    b"\n",
    b"\r",
    b"\t",
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"9" * 5000,
    b"[" * 3000,
)


def rows(source):
    """Mostly good rows, in which a label, a word or a mark is strange now and then."""
    strange = source.choice((0.0, 0.0, 0.02, 0.3))
    made = []
    for place in range(source.choice((2, 12, 24))):
        words = [source.choice(WORDS if source.random() < strange else WORDS[:3]) for _ in range(source.randint(1, 6))]
        marks = [source.choice(MARKS if source.random() < strange else MARKS[:2]) for _ in words]
        label = source.choice(LABELS) if source.random() < strange else place % 2
        made.append({"text": " ".join(words), "tokens": words, "label": label, "rationale": marks})
    return made


def written(path, content, source):
    """The rows in the format that the name says, as far as it can hold them."""
    suffix = "".join(path.suffixes).removesuffix(".gz")
    if suffix == ".parquet":
        return parquet(content, source)
    if suffix in (".csv", ".tsv"):
        buffer = io.StringIO(newline="")
        writer = csv.writer(
            buffer, delimiter=source.choice(",;\t|"), lineterminator=source.choice(("\n", "\r\n", "\r"))
        )
        fields = ["text", "label", *source.choice(([], ["tokens", "rationale"]))]
        writer.writerow([source.choice((name, name, name, f" {name}", "")) for name in fields])
        writer.writerows([[row[name] for name in fields] for row in content])
        return buffer.getvalue().encode("utf-8", "surrogatepass" if source.random() < 0.1 else "replace")
    if suffix == ".json" and source.random() < 0.5:
        posts = {str(place): post(row) for place, row in enumerate(content)}
        return json.dumps(posts).encode()
    if suffix == ".json" and source.random() < 0.5:
        return json.dumps(content).encode()
    if suffix in (".json", ".jsonl"):
        return "\n".join(json.dumps(row) for row in content).encode()
    return "\n".join(f"{row['label']} {row['text']}" for row in content).encode("utf-8", "replace")


def post(row):
    annotators = [{"label": row["label"], "annotator_id": place} for place in range(3)]
    return {"annotators": annotators, "rationales": [row["rationale"]] * 2, "post_tokens": row["tokens"]}


def parquet(content, source):
    """Tables hold columns of one type, so strange cells become text; some carry class names."""
    label = source.choice((str, int))
    table = {
        "text": [row["text"].encode("utf-8", "replace").decode() for row in content],
        "label": [label(row["label"]) if row["label"] in (0, 1) else label(0) for row in content],
    }
    arrow = pa.table(table)
    if label is int and source.random() < 0.5:
        names = source.choice((["no", "yes"], ["yes", "no"], ["a"], [], ["x"] * 2))
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        note = json.dumps({"info": {"features": source.choice((features, {}, None))}})
        arrow = arrow.replace_schema_metadata({"huggingface": note})
    buffer = io.BytesIO()
    pq.write_table(arrow, buffer)
    return buffer.getvalue()


def put(folder, name, source):
    path = folder / f"{name}{source.choice(EXTENSIONS)}"
    data = written(path, rows(source), source)
    if source.random() < 0.4:
        data = damaged(data, source, PIECES)
    if path.suffix == ".gz":
        data = gzip.compress(data)
        if source.random() < 0.1:
            data = damaged(data, source)
    path.write_bytes(data)
    return path


def file_options(source):
    """Mostly none, so that most files get past the first check."""
    options = {
        "delimiter": source.choice((None, ",", ";", "\\t", "ab")),
        "encoding": source.choice((None, "latin-1", "utf-16", "utf-8", "base64", "cp037")),
        "columns": source.choice((None, ["text", "label"], ["label", "text"], ["a", "a"])),
    }
    return {name: value if source.random() < 0.08 else None for name, value in options.items()}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "files"


def test_reading(fuzz, folder):
    folder.mkdir()

    def reading(source):
        path = put(folder, "train", source)
        try:
            options = file_options(source)
            columns = options.pop("columns")
            read_as = FileOptions(**options, columns=tuple(columns) if columns else None)
            split = from_files({"train": path}, read_as=read_as).splits["train"]
            tokens = source.choice((None, "tokens"))
            wanted = Columns(tokens=tokens, annotations=(("rationale", "rationale"),) if tokens else ())
            labels = Labels.scan(split, "label")
            for row in records(split, wanted, labels):
                row["text"].encode()
                assert 0 <= row["label"] < len(labels.names)
                assert all(mark in (0, 1) for mark in row.get("rationale") or ())
        finally:
            path.unlink()

    fuzz(reading, 200)


def test_preparing(fuzz, folder):
    datasets.disable_progress_bars()

    def preparing(source):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        train = put(folder, "train", source)
        test = put(folder, "test", source) if source.random() < 0.3 else None
        tokens = source.choice((None, None, "tokens"))
        data = TextFiles(
            train,
            test=test,
            tokens_column=tokens,
            rationale_column="rationale" if tokens and source.random() < 0.7 else None,
            label_names=source.choice((*[None] * 9, ["no", "yes"], ["0", "1"], ["0", "1.0"], ["0", "0"])),
            cache=folder / "cache",
            embeddings=RandomEmbeddings(2),
            tokenizer=source.choice((None, "unicode", "treebank")),
            digits=source.choice((None, "merge")),
            unknown=source.choice(("token", "drop")),
            max_length=source.choice((None, 3)),
            min_length=source.choice((None, None, 2)),
            validation_fraction=source.choice((None, 0.5)),
            **file_options(source),
        )
        data.prepare_data()
        data.setup()
        for loader in (data.train_dataloader(), data.val_dataloader()):
            for batch in loader:
                assert batch.mask.any(1).all()
                assert (batch.tokens < len(data.tokenizer)).all()
        json.dumps(data.manifest, allow_nan=False).encode()

    fuzz(preparing, 20)
