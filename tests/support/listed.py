"""The methods that the package publishes."""

import ast
from pathlib import Path

import attn_lightning.methods
from attn_lightning.methods import Method


def published_methods() -> dict[str, type[Method]]:
    """Those that `attn_lightning.methods` writes out: what the README shows and has checked by a second hand.

    A method of somebody's own is found without being written there, so that it needs neither.
    """
    tree = ast.parse(Path(str(attn_lightning.methods.__file__)).read_text("utf-8"))
    names = [alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    found = {name: getattr(attn_lightning.methods, name, None) for name in names}
    return {n: c for n, c in found.items() if isinstance(c, type) and issubclass(c, Method) and c is not Method}
