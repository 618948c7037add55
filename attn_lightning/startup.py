"""Keeps out of every start what only some programs need: what torchmetrics, and with it Lightning, imports at once."""

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_UNUSED = frozenset({"matplotlib", "PIL", "scipy", "transformers"})
"""What torchmetrics imports at once wherever it is installed: for its plots, and for measures of sound and of text."""


def lean_torchmetrics() -> None:
    """From now on `import torchmetrics` leaves matplotlib, scipy and transformers for when they are used.

    Lightning imports torchmetrics, and these packages with all that they import are a third of the time of that. Plots
    of a metric work as ever: they import matplotlib when the first is drawn. The measures of torchmetrics that run a
    model of `transformers` (BERTScore, CLIPScore) are not there. Nothing happens where torchmetrics is imported
    already.
    """
    if "torchmetrics" not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds torchmetrics where it is, once."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        if name != "torchmetrics":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Loads torchmetrics as its own loader does, with what it does not need out of its sight."""

    def __init__(self, own: Loader) -> None:
        self._own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__loader__ = module.__spec__.loader = self._own
        with _out_of_sight():
            self._own.exec_module(module)
        plots: Any = importlib.import_module(f"{module.__name__}.utilities.plot")
        plots.matplotlib, plots.plt = _Later("matplotlib"), _Later("matplotlib.pyplot")


@contextmanager
def _out_of_sight() -> Iterator[None]:
    """Libraries that ask Lightning's helpers whether a package is installed are told no, for some packages."""
    from lightning_utilities.core import imports
    from packaging.requirements import Requirement

    requirement, package = imports.RequirementCache.__bool__, imports.package_available

    def is_met(asked: imports.RequirementCache) -> bool:
        # The answer is not stored in `asked`, so that whoever asks later is told the truth.
        return (asked.requirement is None or Requirement(asked.requirement).name not in _UNUSED) and requirement(asked)

    def is_there(name: str) -> bool:
        return name not in _UNUSED and bool(package(name))

    try:
        imports.RequirementCache.__bool__ = is_met  # type: ignore[method-assign, assignment]
        imports.package_available = is_there  # type: ignore[assignment]
        yield
    finally:
        imports.RequirementCache.__bool__ = requirement  # type: ignore[method-assign]
        imports.package_available = package


class _Later:
    """A module that is imported when something of it is used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)
