"""Find what counts as a test: the asserts that can fail, and the functions that a test runner calls."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence

CHECK_FUNCTION = "check"
"""The test function of HumanEval: its one argument is the function under test (Chen et al. 2021)."""

_UNITTEST = re.compile(r"assert[A-Z]\w*|fail[A-Z]\w*")
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def parse_or_none(source: str) -> ast.Module | None:
    """Return a test's syntax tree, or None if it is not Python."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def constant_truth(expression: ast.expr) -> bool | None:
    """Return an expression's truth value if it does not depend on the program; else None."""
    match expression:
        case ast.Constant(value=value):
            return bool(value)
        case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
            return True if any(not isinstance(item, ast.Starred) for item in items) else None if items else False
        case ast.Dict(keys=keys):
            return True if any(key is not None for key in keys) else None if keys else False
        case ast.Lambda() | ast.GeneratorExp():
            return True
        case ast.JoinedStr(values=parts):
            return True if any(isinstance(part, ast.Constant) and part.value for part in parts) else None
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            truth = constant_truth(operand)
            return None if truth is None else not truth
        case ast.NamedExpr(value=value):
            return constant_truth(value)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            truth = constant_truth(test)
            if truth is not None:
                return constant_truth(body if truth else orelse)
            either = {constant_truth(body), constant_truth(orelse)}
            return either.pop() if len(either) == 1 else None
        case ast.BoolOp(op=operator, values=values):
            decisive = isinstance(operator, ast.Or)
            if {ast.dump(value) for value in values} & {ast.dump(_negated(value)) for value in values}:
                return decisive
            truths = [constant_truth(value) for value in values]
            if decisive in truths:
                return decisive
            return None if None in truths else not decisive
        case ast.Compare(left=ast.Call(func=ast.Name(id="len")), ops=[ast.GtE()], comparators=[ast.Constant(value=0)]):
            return True
        case ast.Compare(left=left, ops=[ast.Eq() | ast.Is() | ast.LtE() | ast.GtE() as operator], comparators=[right]):
            new = isinstance(operator, ast.Is) and any(isinstance(node, ast.Call) for node in ast.walk(left))
            return True if ast.dump(left) == ast.dump(right) and not new else None
        case ast.Compare(left=left, ops=[ast.In()], comparators=[ast.List(elts=items) | ast.Tuple(elts=items)]):
            return True if ast.dump(left) in map(ast.dump, items) else None
        case ast.Call(func=ast.Name(id="isinstance"), args=[_, ast.Name(id="object")]):
            return True
        case _:
            return None


_OPPOSITES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.Is: ast.IsNot,
    ast.In: ast.NotIn,
    ast.Lt: ast.GtE,
    ast.Gt: ast.LtE,
}
_OPPOSITES |= {opposite: operator for operator, opposite in _OPPOSITES.items()}


def _negated(expression: ast.expr) -> ast.expr:
    match expression:
        case ast.Compare(left=left, ops=[operator], comparators=comparators):
            return ast.Compare(left, [_OPPOSITES[type(operator)]()], comparators)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return operand
        case _:
            return ast.UnaryOp(ast.Not(), expression)


def can_fail(node: ast.AST) -> bool:
    """Return whether a node is an assert, or a call of a unittest assert, that can fail."""
    if isinstance(node, ast.Assert):
        return constant_truth(node.test) is not True
    return is_unittest_assert(node)


def is_unittest_assert(node: ast.AST) -> bool:
    """Return whether a node calls a unittest assert on a value that is not constant."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and _UNITTEST.fullmatch(node.func.attr) is not None
        and not (node.func.attr in ("assertTrue", "assertFalse") and len(node.args) > 0 and _is_constant(node.args[0]))
    )


def _is_constant(expression: ast.expr) -> bool:
    return constant_truth(expression) is not None


def expects_exception(node: ast.Try) -> bool:
    """Return whether a `try` expects an exception: without one, it reaches an `assert False` or the like."""
    return any(always_fails(inner) for statement in (*node.body, *node.orelse) for inner in ast.walk(statement))


def always_fails(node: ast.AST) -> bool:
    """Return whether a test that reaches this node fails."""
    if isinstance(node, ast.Expr):
        node = node.value
    return (
        (isinstance(node, ast.Assert) and constant_truth(node.test) is False)
        or (isinstance(node, ast.Raise) and node.exc is not None and "AssertionError" in ast.dump(node.exc))
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "fail")
    )


def contains_assert(tree: ast.AST) -> bool:
    """Return whether a tree contains a check that can fail a program that returns a wrong value."""
    return any(can_fail(node) or (isinstance(node, ast.Try) and expects_exception(node)) for node in ast.walk(tree))


def entry_points(tree: ast.Module) -> Iterator[FunctionNode | ast.ClassDef]:
    """Yield the definitions that a test runner calls: `check`, `test…` and test classes."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            if is_test_case(node) or (node.name.startswith("Test") and not node.bases):
                yield node
        elif isinstance(node, FunctionNode):
            takes_candidate = len(node.args.posonlyargs + node.args.args) == 1
            if node.name.startswith("test") or (node.name == CHECK_FUNCTION and takes_candidate):
                yield node


def is_test_case(node: ast.ClassDef) -> bool:
    """Return whether a class is a unittest test case, not a pytest test class."""
    return any("TestCase" in ast.dump(base) for base in node.bases)


def called_names(trees: Iterable[ast.AST]) -> set[str]:
    """Return the names of all functions that the trees call by name."""
    return {
        node.func.id
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


def silent_test(tests: Sequence[str]) -> str | None:
    """Return the first test that looks like an assert but asserts nothing; the first of all if no test asserts.

    Such tests are a bare comparison, a printed comparison, an assert of a tuple or constant, and a function with
    asserts that is never called. Tests that do not parse are ignored.
    """
    trees = [(test, tree) for test in tests if (tree := parse_or_none(test)) is not None]
    calls = called_names(tree for _, tree in trees)
    asserting = False
    for test, tree in trees:
        entries = {id(node) for node in entry_points(tree)}
        for node in tree.body:
            if isinstance(node, FunctionNode | ast.ClassDef):
                runs = id(node) in entries or node.name in calls
                if contains_assert(node) and not runs:
                    return test
                asserting |= runs and contains_assert(node)
            elif _has_no_effect(node):
                return test
            else:
                asserting |= contains_assert(node)
    return None if asserting or not trees else tests[0]


def _has_no_effect(node: ast.stmt) -> bool:
    """Return whether a statement is a comparison or an assert that cannot fail."""
    if isinstance(node, ast.Assert):
        return constant_truth(node.test) is True
    compares = isinstance(node, ast.Expr) and any(isinstance(inner, ast.Compare) for inner in ast.walk(node.value))
    return compares and not contains_assert(node)
