"""Classes that belong to the package as soon as their file lies in its folder: nothing has to list them."""

import importlib
import pkgutil
from typing import TypeVar

Base = TypeVar("Base")


def public_classes(package: str, base: type[Base]) -> dict[str, type[Base]]:
    """Import every module of a package and find its classes of one kind.

    Subclasses that were never imported do not exist for the command line, which knows classes by their short names.

    Args:
        package: dotted name of a package that is imported or is being imported now.
        base: the kind: its subclasses count, itself too if the package defines it.

    Returns:
        The classes by name, module after module and in the order of each file. Names with an underscore are left out,
        and so is what a module only imports: a class is found once, where it is written.
    """
    # Sorted by name within each folder, so that lists and tables have one order on every machine.
    modules = pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
    return {
        name: value
        for found in modules
        for name, value in vars(importlib.import_module(found.name)).items()
        if isinstance(value, type)
        and issubclass(value, base)
        and value.__module__ == found.name
        and not name.startswith("_")
    }
