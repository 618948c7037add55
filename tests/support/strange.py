"""Ways in which a tree of plain values, as YAML and checkpoints hold it, comes to harm."""

import random
from collections.abc import Callable, Iterator
from typing import Any

VALUES: tuple[Any, ...] = (
    None,
    True,
    "",
    "much",
    "1e400",
    " 3 ",
    "\x1b[31m",
    "é/../..",
    -1,
    0,
    0.5,
    -0.0,
    2**70,
    1e308,
    float("inf"),
    float("nan"),
    [],
    [1, "a"],
    {},
    {"a": 1},
    {"class_path": "os.system", "init_args": {}},
)


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a tree with every key or index of it."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list) and tree[key]:
            yield from places(tree[key])


def spoil(tree: Any, source: random.Random, allowed: Callable[[Any, Any], bool] = lambda key, value: True) -> None:
    """Change a tree in up to three places: values replaced, keys lost, doubled or misspelled."""
    for _ in range(source.randint(1, 3)):
        found = list(places(tree))
        if not found:
            return
        container, key = source.choice(found)
        kind = source.randrange(6)
        if kind == 0 and isinstance(container, dict):
            del container[key]
        elif kind == 1 and isinstance(key, str) and key:
            container[key[:-1]] = container.pop(key)
        elif kind == 2 and isinstance(container, dict):
            container[source.choice((*container, 1, "", "strange", None))] = container[key]
        else:
            value = source.choice(VALUES)
            container[key] = value if allowed(key, value) else -1
