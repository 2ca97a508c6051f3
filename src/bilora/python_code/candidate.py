"""Tests that call what they test `candidate`, as HumanEval's `check(candidate)` does."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from bilora.python_code.signature import Function, definitions, free_names
from bilora.python_code.source import parse

CANDIDATE, CHECK = "candidate", "check"


def defines_check(test: str) -> bool:
    """Whether a test defines `check` with a parameter."""
    tree = parse(test)
    return tree is not None and any(
        isinstance(node, Function) and node.name == CHECK and (node.args.args or node.args.posonlyargs)
        for node in tree.body
    )


def calls_candidate(tests: Sequence[str]) -> bool:
    """Whether tests leave it open which function they are for."""
    trees = [tree for test in tests if (tree := parse(test))]
    if any(CANDIDATE in free_names(tree) for tree in trees):
        return True
    return any(map(defines_check, tests)) and not any(_checked(tree) for tree in trees)


def candidate_name(tree: ast.Module) -> str:
    """Return the last function that the code defines: helpers stand before what they help. "" if there is none."""
    functions = [name for name, node in definitions(tree).items() if isinstance(node, Function | ast.Lambda)]
    return functions[-1] if functions else ""


def named_tests(tests: Sequence[str], name: str) -> tuple[str, ...]:
    """Write `name` for an unbound `candidate`, and add the call of `check` that is missing."""
    named = tuple(_renamed(test, name) for test in tests) if name else tuple(tests)
    checked = any(_checked(tree) for test in named if (tree := parse(test)))
    return named if checked or not name or not any(map(defines_check, named)) else (*named, f"{CHECK}({name})")


def _checked(tree: ast.Module) -> bool:
    """Whether `check` is called outside of functions."""
    outside = [node for node in tree.body if not isinstance(node, Function | ast.ClassDef)]
    return any(
        isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == CHECK
        for node in outside
        for part in ast.walk(node)
    )


def _renamed(test: str, name: str) -> str:
    tree = parse(test)
    if tree is None or CANDIDATE not in free_names(tree):
        return test
    lines = test.encode().split(b"\n")
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == CANDIDATE]
    for node in sorted(found, key=lambda node: (node.lineno, node.col_offset), reverse=True):
        line = lines[node.lineno - 1]
        lines[node.lineno - 1] = line[: node.col_offset] + name.encode() + line[node.end_col_offset :]
    return b"\n".join(lines).decode()
