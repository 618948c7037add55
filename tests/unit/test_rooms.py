"""Imports run downward: a room knows the rooms below it and none above, so that each can be read and tested alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import attn_lightning

PACKAGE = Path(attn_lightning.__file__).parent

ROOMS = (
    ("__main__",),
    ("cli",),
    ("commands",),
    ("report",),
    ("study",),
    ("callbacks",),
    ("evaluation",),
    ("module",),
    ("measurements",),
    ("methods",),
    ("perturbation",),
    ("step",),
    ("data",),
    ("backbone",),
    ("metrics",),
    ("checkpoint", "run_folder", "task_loss"),
    ("locks", "console", "files", "checks"),
    ("numerics", "types", "errors"),
)
"""From the roof to the ground; those of one line do not know each other either."""

FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> Iterator[str]:
    """Dotted names below the package that a file imports, at its head or inside a function."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "attn_lightning":
            yield from (alias.name for alias in node.names if not alias.name.startswith("__"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("attn_lightning."):
            yield str(node.module).removeprefix("attn_lightning.")
        elif isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
            yield from (name.removeprefix("attn_lightning.") for name in names if name.startswith("attn_lightning."))


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def test_every_room_has_its_floor():
    assert {room_of(path) for path in FILES} == set(FLOOR)


@pytest.mark.parametrize("room", FLOOR)
def test_a_room_imports_only_from_below(room):
    upward = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in FILES
        if room_of(path) == room
        for name in imported_modules(path)
        if (other := name.split(".")[0]) != room and FLOOR[other] <= FLOOR[room]
    ]
    assert not upward
