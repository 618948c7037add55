"""Stories in the layout of bAbI, where only a place that a story names can be the answer."""

import json
from pathlib import Path

import numpy as np

PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")


def stories(folder: Path, count: int = 24, seed: int = 0) -> Path:
    """Two people who go to one place each, in the layout of the local copy; every place is an answer."""
    generator = np.random.default_rng(seed)
    (folder / "babi_qa1").mkdir(parents=True)
    for split in ("train", "validation", "test"):
        lines = []
        for number in range(count):
            where, other = PLACES[number % 6], PLACES[(number + 1 + generator.integers(5)) % 6]
            tokens = f"Mary went to the {where} . John went to the {other} .".split()
            marks = [int(place < 6) for place in range(len(tokens))]
            row = {"text": " ".join(tokens), "tokens": tokens, "rationale": marks}
            lines.append(json.dumps(row | {"question": "Where is Mary ?", "label": PLACES.index(where)}))
        (folder / "babi_qa1" / f"{split}.jsonl").write_text("\n".join(lines), "utf-8")
    return folder
