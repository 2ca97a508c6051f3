"""Tests that call what they test `candidate`, as HumanEval's `check(candidate)` does."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from bilora.python_code.signature import Function, called_name, definitions, free_names
from bilora.python_code.source import parse

_CANDIDATE, _CHECK = "candidate", "check"


def defines_check(test: str) -> bool:
    """Whether a test defines `check` with a parameter."""
    tree = parse(test)
    return tree is not None and any(
        isinstance(node, Function) and node.name == _CHECK and (node.args.args or node.args.posonlyargs)
        for node in tree.body
    )


def candidate_name(tree: ast.Module, tests: Sequence[str]) -> str:
    """Return what the tests are for: what `check` is called with, else what the first test calls; "" if nothing.

    A first test that calls `candidate` is for the last function that the code defines: helpers come before
    what they help.
    """
    known = definitions(tree)
    trees = [parsed for test in tests if (parsed := parse(test))]
    checked = (argument.id for parsed in trees for argument in _checked(parsed) if isinstance(argument, ast.Name))
    name = next((name for name in checked if name in known), None)
    if name is None and not _leaves_open(tests[0]):
        return called_name(tree, tests[0]) or ""
    functions = [name for name, node in known.items() if isinstance(node, Function | ast.Lambda)]
    return name or next(reversed(functions), "")


def _leaves_open(test: str) -> bool:
    tree = parse(test)
    return tree is not None and (_CANDIDATE in free_names(tree) or defines_check(test))


def named_tests(tests: Sequence[str], name: str) -> tuple[str, ...]:
    """Write `name` for an unbound `candidate`, and add the call of `check` that is missing."""
    named = tuple(_renamed(test, name) for test in tests)
    checked = any(_checked(tree) for test in named if (tree := parse(test)))
    return named if checked or not any(map(defines_check, named)) else (*named, f"{_CHECK}({name})")


def _checked(tree: ast.Module) -> list[ast.expr]:
    """Return what `check` is called with outside of functions."""
    outside = [node for node in tree.body if not isinstance(node, Function | ast.ClassDef)]
    calls = [part for node in outside for part in ast.walk(node) if isinstance(part, ast.Call)]
    return [call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id == _CHECK and call.args]


def _renamed(test: str, name: str) -> str:
    tree = parse(test)
    if tree is None or _CANDIDATE not in free_names(tree):
        return test
    lines = test.encode().split(b"\n")
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == _CANDIDATE]
    for node in sorted(found, key=lambda node: (node.lineno, node.col_offset), reverse=True):
        line = lines[node.lineno - 1]
        lines[node.lineno - 1] = line[: node.col_offset] + name.encode() + line[node.end_col_offset :]
    return b"\n".join(lines).decode()
