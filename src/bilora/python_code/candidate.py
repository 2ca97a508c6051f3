"""Tests that use the name `candidate` for the function under test, as HumanEval's `check(candidate)` does."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from bilora.python_code.signature import Function, called_name, definitions, free_names
from bilora.python_code.source import parse

_CANDIDATE, _CHECK = "candidate", "check"


def defines_check(test: str) -> bool:
    """Return whether a test defines `check` with a parameter."""
    tree = parse(test)
    return tree is not None and any(
        isinstance(node, Function) and node.name == _CHECK and (node.args.args or node.args.posonlyargs)
        for node in tree.body
    )


def candidate_name(tree: ast.Module, tests: Sequence[str]) -> str:
    """Return the function under test: the argument of `check`, else what the first test calls; "" if neither exists.

    If the first test uses `candidate`, that is the code's last function, because helpers come before their callers.
    """
    defined = definitions(tree)
    trees = [parsed for test in tests if (parsed := parse(test))]
    arguments = (argument for parsed in trees for argument in _check_arguments(parsed))
    names = (argument.id for argument in arguments if isinstance(argument, ast.Name))
    name = next((name for name in names if name in defined), None)
    if name is None and not _uses_candidate(tests[0]):
        return called_name(tree, tests[0]) or ""
    functions = [name for name, node in defined.items() if isinstance(node, Function | ast.Lambda)]
    return name or next(reversed(functions), "")


def _uses_candidate(test: str) -> bool:
    tree = parse(test)
    return tree is not None and (_CANDIDATE in free_names(tree) or defines_check(test))


def replace_candidate(tests: Sequence[str], name: str) -> tuple[str, ...]:
    """Return the tests with `name` for an unbound `candidate`, and with a missing call of `check` added."""
    renamed = tuple(_with_name(test, name) for test in tests)
    calls_check = any(_check_arguments(tree) for test in renamed if (tree := parse(test)))
    return renamed if calls_check or not any(map(defines_check, renamed)) else (*renamed, f"{_CHECK}({name})")


def _check_arguments(tree: ast.Module) -> list[ast.expr]:
    """Return the first argument of each call of `check` outside functions."""
    outside = [node for node in tree.body if not isinstance(node, Function | ast.ClassDef)]
    calls = [part for node in outside for part in ast.walk(node) if isinstance(part, ast.Call)]
    return [call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id == _CHECK and call.args]


def _with_name(test: str, name: str) -> str:
    tree = parse(test)
    if tree is None or _CANDIDATE not in free_names(tree):
        return test
    lines = test.encode().split(b"\n")
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == _CANDIDATE]
    for node in sorted(uses, key=lambda node: (node.lineno, node.col_offset), reverse=True):
        line = lines[node.lineno - 1]
        lines[node.lineno - 1] = line[: node.col_offset] + name.encode() + line[node.end_col_offset :]
    return b"\n".join(lines).decode()
