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

_MIXING = ("max", "min", "sum")
"""Of these, those whose arguments meet each other."""

_METHODS = frozenset(
    name for kind in (str, bytes, int, float, complex, list, tuple, set, frozenset, dict) for name in dir(kind)
)
"""Methods of plain data, which a class that extends it may override to say what a test wants to hear."""

_VERDICTS = (ast.Compare, ast.BoolOp)
_NAMESPACE = {"__builtins__": {name: getattr(builtins, name) for name in _CALLABLE}}
_PLAIN = (
    *(ast.Constant, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Load, ast.Call, ast.keyword, ast.Name),
    *(ast.UnaryOp, ast.BinOp, ast.operator, ast.unaryop),
)


@dataclass(frozen=True)
class Split:
    """`check(value of expression, expected)` decides; only `expression` travels to the candidate.

    `names` are all names in it, whatever they stand for.
    """

    expression: str
    expected: Any
    check: Callable[[Any, Any], bool]
    names: frozenset[str]


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
        if check is None or not _is_plain(expected) or not _is_data(expression):
            continue
        try:
            value = eval(compile(ast.Expression(expected), "<expected>", "eval"), dict(_NAMESPACE))
        except Exception:  # the assert fails by itself; the candidate's process will say how
            return None
        names = frozenset(node.id for node in ast.walk(expression) if isinstance(node, ast.Name))
        return Split(_source(test.strip(), expression), value, check, names)
    return None


def _check(comparison: ast.cmpop, expected: ast.expr) -> Callable[[Any, Any], bool] | None:
    if isinstance(comparison, ast.Eq):
        return operator.eq
    if isinstance(comparison, ast.Is) and isinstance(expected, ast.Constant):
        return operator.is_ if any(expected.value is one for one in (None, True, False)) else None
    return None


def _source(test: str, expression: ast.expr) -> str:
    """Return an expression as the test has it, if it is on one line, else written anew, which is slower."""
    if expression.lineno == expression.end_lineno == 1:
        return test.encode()[expression.col_offset : expression.end_col_offset].decode()
    return ast.unparse(expression)


def _is_data(expression: ast.expr) -> bool:
    """Whether an expression only asks the program and puts what it gives in another form.

    A comparison or a calculation with what it gives could hold the expected value, and is not left to its process:
    `f(1) == 2`, though it gives a truth value. The arguments of its own functions may be anything else.
    """
    match expression:
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords) if name in _CALLABLE:
            together: list[ast.expr] = [one for one in arguments if isinstance(one, ast.List | ast.Tuple)]
            if name in _MIXING and len(arguments) > 1:
                together = arguments
            if any(isinstance(node, ast.Call) for one in together for node in ast.walk(one)):
                return False
            return all(map(_is_data, [*arguments, *(one.value for one in keywords)]))
        case ast.Call(func=ast.Attribute(attr=name), args=[_, *_]) if name in _METHODS:
            return False  # as in `f(1).startswith('x')`
        case ast.Call(func=function, args=arguments, keywords=keywords):
            decided = any(isinstance(one, _VERDICTS) for one in (*arguments, *(one.value for one in keywords)))
            return not decided and _is_data(function)
        case ast.Attribute(value=value) | ast.Subscript(value=value) | ast.Starred(value=value):
            return _is_data(value)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return all(map(_is_data, items)) and len({isinstance(item, ast.Constant) for item in items}) < 2
        case _:
            return isinstance(expression, ast.Name | ast.Constant)


def _is_plain(expression: ast.expr) -> bool:
    functions = {id(node.func) for node in ast.walk(expression) if isinstance(node, ast.Call)}
    return all(
        isinstance(node, _PLAIN)
        and (not isinstance(node, ast.Name) or (id(node) in functions and node.id in _CALLABLE))
        and (not isinstance(node, ast.Call) or isinstance(node.func, ast.Name))
        for node in ast.walk(expression)
    )
