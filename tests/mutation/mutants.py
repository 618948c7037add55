"""One-place mutants of formulas, made by the operators of mutmut and put into a process that has everything imported.

mutmut itself copies the repository and imports the copy, and cosmic-ray starts a process per mutant: with torch that is
8 s each. Here a mutant is a function whose code is exchanged in place, so that a fork of a warm process is enough.
"""

import ast
import hashlib
import importlib
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import libcst as cst
from libcst.metadata import MetadataWrapper
from mutmut.mutation.file_mutation import Mutation, MutationVisitor
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

REPOSITORY = Path(__file__).resolve().parents[2]
NOT_FORMULAS = ("operator_string", "operator_dict_arguments")
"""Operators that change texts; messages have tests of their own."""


@dataclass(frozen=True)
class Mutant:
    """A function of the package with one place changed.

    Attributes:
        path: of the module, relative to the repository.
        function: `Class.method` or `function`.
        line: of the change.
        before: that line, without indentation.
        after: what it became.
        source: of the whole module with the change.
    """

    path: str
    function: str
    line: int
    before: str
    after: str
    source: str

    @property
    def key(self) -> str:
        """The same in every run, as long as the module stays as it is."""
        return hashlib.sha256(f"{self.path}\n{self.source}".encode()).hexdigest()[:16]


class _Visitor(MutationVisitor):
    """Leaves out what raises errors: a message is no formula."""

    def on_visit(self, node: cst.CSTNode) -> bool:
        return not isinstance(node, cst.Raise) and super().on_visit(node)


def mutants_of(path: str) -> list[Callable[[], Mutant | None]]:
    """All mutants of the functions of a module, each made when it is called; None for one that is no other program."""
    source = (REPOSITORY / path).read_text("utf-8")
    wrapper = MetadataWrapper(cst.parse_module(source))
    operators = [pair for pair in mutation_operators if pair[1].__name__ not in NOT_FORMULAS]
    visitor = _Visitor(operators, IgnoredCode(set(), set(), set()))
    wrapper.visit(visitor)
    names = dict(_functions(wrapper.module))
    original = ast.dump(ast.parse(source))

    def make(mutation: Mutation, function: str) -> Mutant | None:
        changed = wrapper.module.deep_replace(mutation.original_node, mutation.mutated_node).code
        try:
            same = ast.dump(ast.parse(changed)) == original
        except SyntaxError:
            return None
        return None if same else Mutant(path, function, *_difference(source, changed), changed)

    outer = [(mutation, names.get(mutation.contained_by_top_level_function)) for mutation in visitor.mutations]
    return [partial(make, mutation, function) for mutation, function in outer if function is not None]


def _functions(module: cst.Module) -> Iterator[tuple[Any, str]]:
    for statement in module.body:
        if isinstance(statement, cst.FunctionDef):
            yield statement, statement.name.value
        elif isinstance(statement, cst.ClassDef):
            for inner in statement.body.body:
                if isinstance(inner, cst.FunctionDef):
                    yield inner, f"{statement.name.value}.{inner.name.value}"


def _difference(before: str, after: str) -> tuple[int, str, str]:
    old, new = before.splitlines(), after.splitlines()
    first = next(i for i in range(max(len(old), len(new))) if old[i : i + 1] != new[i : i + 1])
    last = 0
    while old[len(old) - 1 - last] == new[len(new) - 1 - last] and last < min(len(old), len(new)) - first - 1:
        last += 1
    return first + 1, _joined(old[first : len(old) - last]), _joined(new[first : len(new) - last])


def _joined(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines)


def module_of(path: str) -> types.ModuleType:
    return importlib.import_module(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))


def apply(mutant: Mutant) -> None:
    """Give the live function of this process the code and the defaults of the mutant's.

    Raises:
        LookupError: the function cannot be exchanged in place.
    """
    module = module_of(mutant.path)
    copy = types.ModuleType(module.__name__)
    copy.__dict__.update({name: module.__dict__[name] for name in ("__file__", "__package__", "__path__", "__spec__")
                          if name in module.__dict__})  # fmt: skip
    exec(compile(mutant.source, str(REPOSITORY / mutant.path), "exec"), copy.__dict__)
    live, changed = _found(module, mutant.function), _found(copy, mutant.function)
    if len(live.__code__.co_freevars) != len(changed.__code__.co_freevars):
        raise LookupError(f"{mutant.function} closes over other names")
    live.__code__ = changed.__code__
    live.__defaults__, live.__kwdefaults__ = changed.__defaults__, changed.__kwdefaults__


def _found(module: types.ModuleType, name: str) -> Any:
    """The plain function behind decorators."""
    found: Any = module
    for part in name.split("."):
        found = vars(found)[part]
    for _ in range(9):
        if isinstance(found, property):
            found = found.fget
        elif isinstance(found, cached_property):
            found = found.func
        elif hasattr(found, "__wrapped__"):
            found = found.__wrapped__
        elif isinstance(found, classmethod | staticmethod):
            found = found.__func__
    if not isinstance(found, types.FunctionType):
        raise LookupError(f"{name} is not a plain function")
    return found
