"""How the house is built: imports run downward, private names stay in their room, and no file is too long to read.

A room knows the rooms below it and none above, so that each can be read and tested alone.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import attn_lightning

PACKAGE = Path(attn_lightning.__file__).parent
TESTS = Path(__file__).resolve().parents[1]

MOST_LINES = 400

TOO_LONG: frozenset[str] = frozenset()
"""Files that are still too long; the list only gets shorter."""

ROOMS = (
    ("__main__",),
    ("cli",),
    ("commands",),
    ("report",),
    ("study",),
    ("callbacks",),
    ("evaluation",),
    ("testing",),
    ("module",),
    ("measurements",),
    ("methods",),
    ("perturbation",),
    ("step", "optimization"),
    ("data",),
    ("backbone",),
    ("metrics",),
    ("checkpoint", "run_folder", "sheet", "task_loss"),
    ("locks", "signals", "console", "files", "checks", "experiments"),
    ("numerics", "types", "errors", "discovery", "startup"),
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


@pytest.mark.parametrize("folder", [PACKAGE, TESTS], ids=["package", "tests"])
def test_no_file_is_too_long_to_read(folder):
    lengths = {
        str(path.relative_to(folder)): len(path.read_text("utf-8").splitlines()) for path in folder.rglob("*.py")
    }
    assert {name: length for name, length in lengths.items() if length > MOST_LINES and name not in TOO_LONG} == {}


def private_names(path: Path) -> Iterator[str]:
    """Private names of the package that a file takes from another room: imported, or reached through a module."""
    own = room_of(path) if PACKAGE in path.parents else None
    modules: dict[str, str] = {}
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "attn_lightning":
            room = f"{node.module}.".split(".")[1]
            for alias in node.names:
                if (room or alias.name) != own:
                    modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                    if is_private(alias.name):
                        yield f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and is_private(node.attr):
            taken = modules.get(node.value.id)
            if taken is not None and (PACKAGE.parent / f"{taken.replace('.', '/')}.py").exists():
                yield f"{taken}.{node.attr}"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@pytest.mark.parametrize("folder", [PACKAGE, TESTS], ids=["package", "tests"])
def test_no_private_name_leaves_its_room(folder):
    taken = {str(path.relative_to(folder)): list(private_names(path)) for path in folder.rglob("*.py")}
    taken.pop("unit/commands/test_predict.py", None)  # waits for a public name of the batches of a prediction
    assert {name: names for name, names in taken.items() if names} == {}
