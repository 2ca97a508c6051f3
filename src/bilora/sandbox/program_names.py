"""Find the names in tests that refer to the program."""

from __future__ import annotations

import ast
import builtins
import re
import symtable
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from bilora.sandbox.assertions import parse_or_none

CANDIDATE_NAME = "candidate"
"""The name by which a test may refer to the function under test, whatever its real name."""


@dataclass(frozen=True)
class TopLevelNames:
    """Names at a module's top level: those that its code `binds`, and those that it only `uses`."""

    binds: frozenset[str]
    uses: frozenset[str]


def top_level_names(sources: Iterable[str]) -> TopLevelNames:
    """Return the names, builtins included, of sources that share a module; skip sources that do not parse."""
    binds: set[str] = set()
    uses: set[str] = set()
    for source in sources:
        try:
            _collect(symtable.symtable(source, "<test>", "exec"), binds, uses, top=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return TopLevelNames(frozenset(binds), frozenset(uses - binds))


def _collect(table: symtable.SymbolTable, binds: set[str], uses: set[str], *, top: bool) -> None:
    for symbol in table.get_symbols():
        if not (top or symbol.is_global()):
            continue
        if symbol.is_assigned() or symbol.is_imported() or (top and symbol.is_namespace()):
            binds.add(symbol.get_name())
        if symbol.is_referenced():
            uses.add(symbol.get_name())
    for child in table.get_children():
        _collect(child, binds, uses, top=False)


def names_of_program(used: Iterable[str], bound: Iterable[str], code: str) -> set[str]:
    """Return the names used by tests that only the program can define.

    A builtin's name refers to the program only if the code defines it and defines no other name that the tests use;
    otherwise the tests use `abs`, but do not test it. The code is searched, not parsed, because it may be written to
    be slow or impossible to parse.
    """
    free = set(used).difference(bound)
    builtin = {name for name in free if hasattr(builtins, name)}
    if not builtin:
        return free
    defined = set(defined_names(code))
    tests_other_names = CANDIDATE_NAME in free or not defined.isdisjoint(free - builtin)
    return free - (builtin if tests_other_names else builtin - defined)


def defined_names(code: str) -> list[str]:
    """Return the names that `def`, `class` or an assignment binds at the start of a line, in order."""
    matches = re.findall(r"^(?:(?:async[ \t]+)?def|class)[ \t]+(\w+)|^(\w+)[ \t]*(?::[^=\n]*)?=(?!=)", code, re.M)
    return [function or variable for function, variable in matches]


def function_under_test(code: str) -> str | None:
    """Return the name of the code's last function, for a `check` that no test calls; None without a function.

    A function with a builtin's name is chosen only if all have one.
    """
    functions: list[str] = re.findall(r"^(?:async[ \t]+)?def[ \t]+(\w+)", code, re.M)
    others = [name for name in functions if not hasattr(builtins, name)]
    return (others or functions)[-1] if functions else None


def module_names(sources: Iterable[str], candidates: Iterable[str]) -> set[str]:
    """Return the names that mean standard library modules: those of which the tests use only attributes."""
    modules = {name for name in candidates if name in sys.stdlib_module_names}
    if not modules:
        return modules
    nodes = [node for source in sources if (tree := parse_or_none(source)) for node in ast.walk(tree)]
    bases = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    return modules - {node.id for node in nodes if isinstance(node, ast.Name) and id(node) not in bases}
