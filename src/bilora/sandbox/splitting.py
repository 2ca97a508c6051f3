"""Split an assert into the expression that the candidate computes and the value that it must not receive."""

from __future__ import annotations

import ast
import builtins
import operator
from collections.abc import Callable
from dataclasses import dataclass

_CALLABLE = (
    *("bool", "int", "float", "complex", "str", "bytes", "list", "tuple", "set", "frozenset", "dict"),
    *("sorted", "abs", "round", "sum", "min", "max", "len"),
)
"""Builtins that convert plain data to plain data."""

_COMBINING = ("max", "min", "sum")
"""The `_CALLABLE` builtins that combine or compare their arguments."""

_METHODS = frozenset(
    name for kind in (str, bytes, int, float, complex, list, tuple, set, frozenset, dict) for name in dir(kind)
)
"""Methods of plain data. A subclass may override them to return what a test expects."""

_VERDICTS = (ast.Compare, ast.BoolOp)
_NAMESPACE = {"__builtins__": {name: getattr(builtins, name) for name in _CALLABLE}}
_LITERAL_NODES = (
    *(ast.Constant, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Load, ast.Call, ast.keyword, ast.Name),
    *(ast.UnaryOp, ast.BinOp, ast.operator, ast.unaryop),
)


@dataclass(frozen=True)
class SplitAssert:
    """An assert, decided by `check(value of expression, expected)`; only `expression` is sent to the candidate.

    `names` contains all names in the expression.
    """

    expression: str
    expected: object
    check: Callable[[object, object], bool]
    names: frozenset[str]


def split_assert(test: str) -> SplitAssert | None:
    """Return the parts of `assert EXPRESSION == EXPECTED`, or None if the test has another form.

    EXPECTED is the side that consists of literals and of calls of `_CALLABLE` builtins on them; with `is` it is
    None, True or False. A message after the comparison is ignored.
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
        check = _check_function(comparison.ops[0], expected)
        if check is None or not _is_literal(expected) or not _is_data(expression):
            continue
        try:
            value = eval(compile(ast.Expression(expected), "<expected>", "eval"), dict(_NAMESPACE))
        except Exception:  # evaluating the expected value raises; run as a whole, the test reports how
            return None
        names = frozenset(node.id for node in ast.walk(expression) if isinstance(node, ast.Name))
        return SplitAssert(_source(test.strip(), expression), value, check, names)
    return None


def _check_function(comparison: ast.cmpop, expected: ast.expr) -> Callable[[object, object], bool] | None:
    if isinstance(comparison, ast.Eq):
        return operator.eq
    if isinstance(comparison, ast.Is) and isinstance(expected, ast.Constant):
        return operator.is_ if any(expected.value is single for single in (None, True, False)) else None
    return None


def _source(test: str, expression: ast.expr) -> str:
    """Return an expression's source: from the test if it is on its first line, else unparsed, which is slower."""
    if expression.lineno == expression.end_lineno == 1:
        return test.encode()[expression.col_offset : expression.end_col_offset].decode()
    return ast.unparse(expression)


def _is_data(expression: ast.expr) -> bool:
    """Return whether an expression only calls the program and converts what it returns.

    A comparison or a calculation with the result could contain the expected value, so the program's process must
    not run it: `f(1) == 2` is refused. The arguments of the program's functions may be any expressions.
    """
    match expression:
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords) if name in _CALLABLE:
            combined: list[ast.expr] = [
                argument for argument in arguments if isinstance(argument, ast.List | ast.Tuple)
            ]
            if name in _COMBINING and len(arguments) > 1:
                combined = arguments
            if any(isinstance(node, ast.Call) for argument in combined for node in ast.walk(argument)):
                return False
            return all(map(_is_data, [*arguments, *(keyword.value for keyword in keywords)]))
        case ast.Call(func=ast.Attribute(attr=name), args=[_, *_]) if name in _METHODS:
            return False  # as in `f(1).startswith('x')`
        case ast.Call(func=function, args=arguments, keywords=keywords):
            values = (*arguments, *(keyword.value for keyword in keywords))
            return not any(isinstance(value, _VERDICTS) for value in values) and _is_data(function)
        case ast.Attribute(value=value) | ast.Subscript(value=value) | ast.Starred(value=value):
            return _is_data(value)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return all(map(_is_data, items)) and len({isinstance(item, ast.Constant) for item in items}) < 2
        case _:
            return isinstance(expression, ast.Name | ast.Constant)


def _is_literal(expression: ast.expr) -> bool:
    functions = {id(node.func) for node in ast.walk(expression) if isinstance(node, ast.Call)}
    return all(
        isinstance(node, _LITERAL_NODES)
        and (not isinstance(node, ast.Name) or (id(node) in functions and node.id in _CALLABLE))
        and (not isinstance(node, ast.Call) or isinstance(node.func, ast.Name))
        for node in ast.walk(expression)
    )
