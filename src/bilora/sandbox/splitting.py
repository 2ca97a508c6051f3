"""Cutting an assert in two: what the candidate must compute, and what it must never see."""

from __future__ import annotations

import ast
import builtins
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_CALLABLE = (
    *("bool", "int", "float", "complex", "str", "bytes", "list", "tuple", "set", "frozenset", "dict"),
    *("sorted", "abs", "round", "sum", "min", "max", "len"),
)
"""Builtins that turn plain data into plain data."""

_NAMESPACE = {"__builtins__": {name: getattr(builtins, name) for name in _CALLABLE}}
_PLAIN = (
    *(ast.Constant, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Load, ast.Call, ast.keyword, ast.Name),
    *(ast.UnaryOp, ast.BinOp, ast.operator, ast.unaryop),
)


@dataclass(frozen=True)
class Split:
    """`check(value of expression, expected)` decides; only `expression` travels to the candidate."""

    expression: str
    expected: Any
    check: Callable[[Any, Any], bool]


def split(test: str) -> Split | None:
    """Split `assert EXPRESSION == EXPECTED`, or return None if the test has another form.

    EXPECTED is a side made of literals and of calls of harmless builtins on them; with `is`, one of
    None, True and False. A message after the comparison is passed over.
    """
    try:
        body = ast.parse(test.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if len(body) != 1 or not isinstance(body[0], ast.Assert):
        return None
    comparison = body[0].test
    if not isinstance(comparison, ast.Compare) or len(comparison.ops) != 1:
        return None
    sides = (comparison.left, comparison.comparators[0])
    for expression, expected in (sides, sides[::-1]):
        check = _check(comparison.ops[0], expected)
        if check is None or not _is_plain(expected):
            continue
        try:
            value = eval(ast.unparse(expected), dict(_NAMESPACE))
        except Exception:  # the assert fails by itself; the candidate's process will say how
            return None
        return Split(ast.unparse(expression), value, check)
    return None


def _check(comparison: ast.cmpop, expected: ast.expr) -> Callable[[Any, Any], bool] | None:
    if isinstance(comparison, ast.Eq):
        return operator.eq
    if isinstance(comparison, ast.Is) and isinstance(expected, ast.Constant):
        return operator.is_ if any(expected.value is one for one in (None, True, False)) else None
    return None


def _is_plain(expression: ast.expr) -> bool:
    functions = {id(node.func) for node in ast.walk(expression) if isinstance(node, ast.Call)}
    return all(
        isinstance(node, _PLAIN)
        and (not isinstance(node, ast.Name) or (id(node) in functions and node.id in _CALLABLE))
        and (not isinstance(node, ast.Call) or isinstance(node.func, ast.Name))
        for node in ast.walk(expression)
    )
