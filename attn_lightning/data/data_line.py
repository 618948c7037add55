"""What a run prints of its data, in one line."""

from typing import Any


def data_line(manifest: dict[str, Any]) -> str:
    """What a run prints of its data: sizes, the longest text, and what was done to the texts."""

    def of_splits(key: str) -> str:
        return " / ".join(f"{content.get(key, 0):,}" for content in splits.values())

    splits = manifest["splits"]
    longest = max(content["longest"] for content in splits.values())
    parts = [
        f"{manifest['name']}: {of_splits('rows')} texts ({' / '.join(splits)})",
        _classes(manifest),
        f"the longest text has {longest:,} words (`--data.max_length` cuts longer ones off)",
    ]
    done = {"truncated": "cut off", "filtered": "left out by length", "unknown": "without a known word"}
    done["empty_question"] = "with an empty second text, which is read as one unknown word"
    changed = [key for key in done if any(content.get(key) for content in splits.values())]
    return "; ".join([*parts, *(f"{of_splits(key)} {done[key]}" for key in changed), *manifest["notes"]])


def _classes(manifest: dict[str, Any]) -> str:
    """How many classes there are; of a user's own files which ones, since a wrong column shows there first."""
    names = manifest["label_names"]
    own = manifest["source"]["kind"] == "files" and len(names) <= 10
    return f"{len(names)} classes" + (f" ({', '.join(f'{name:.30}' for name in names)})" if own else "")
