"""Rewriting a test so that its asserts report the values that they compare."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from bilora.sandbox.assertions import FunctionNode, constant_truth, ends_in_failure, expects_exception, is_unittest
from bilora.sandbox.program_names import CANDIDATE_NAME

BEGIN, COMPARE, DECIDE, EXPECTED = "_bilora_begin", "_bilora_compare", "_bilora_decide", "_bilora_expected"
"""Names of the recorder's methods in an instrumented test; see `instrumented`."""


def instrumented(tree: ast.Module, subject: Subject, fresh: Iterable[str] = ()) -> ast.Module:
    """Rewrite a test so that each assert that can fail reports the values that it compares to a recorder.

    `assert LEFT == RIGHT` becomes `assert COMPARE(BEGIN(), "Eq", LEFT, RIGHT, TEXT, MENTIONS)`, other asserts
    `assert DECIDE(BEGIN(), TEST, TEXT, MENTIONS)`; TEXT is the assert's source, MENTIONS whether it uses a value
    of the program. A handler of an exception that the test expects begins with `EXPECTED()`.

    Args:
        subject: follows the bindings of this tree too.
        fresh: names of plain data, looked up in the program at every use: each use becomes a call of the name.
    """
    subject.follow(tree)
    rewritten = _Instrument(subject, frozenset(fresh)).visit(tree)
    return ast.fix_missing_locations(rewritten)  # type: ignore[no-any-return]


class Subject:
    """The names whose values come from the program, followed through assignments until none is added."""

    def __init__(self, roots: Iterable[str]) -> None:
        self._roots = {*roots, CANDIDATE_NAME}
        self._names = {*self._roots, ".stdout", ".getvalue"}  # what the program printed
        self._parameters: dict[str, list[str]] = {}

    def follow(self, tree: ast.AST) -> None:
        """Follow every binding in a tree."""
        self._parameters |= {
            node.name: [arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            for node in ast.walk(tree)
            if isinstance(node, FunctionNode)
        }
        before = -1
        while before != len(self._names):
            before = len(self._names)
            for node in ast.walk(tree):
                self._follow_node(node)

    def mentioned(self, node: ast.AST | None) -> bool:
        """Whether an expression uses one of the names."""
        return node is not None and any(_name(inner) in self._names for inner in ast.walk(node))

    def answered(self, node: ast.AST) -> bool:
        """Whether an expression uses a value that the program returned, and not only the program's own names."""
        return any(_name(inner) in self._names - self._roots for inner in ast.walk(node))

    def _follow_node(self, node: ast.AST) -> None:
        match node:
            case ast.Assign(targets=targets, value=value) if self.mentioned(value):
                self._bind(*targets)
            case (
                ast.AnnAssign(target=target, value=value)
                | ast.AugAssign(target=target, value=value)
                | ast.NamedExpr(target=target, value=value)
            ) if self.mentioned(value):
                self._bind(target)
            case ast.For(target=target, iter=iterated) | ast.comprehension(target=target, iter=iterated) if (
                self.mentioned(iterated)
            ):
                self._bind(target)
            case ast.withitem(context_expr=context, optional_vars=ast.expr() as target) if self.mentioned(context):
                self._bind(target)
            case ast.Try(body=body, handlers=handlers) | ast.TryStar(body=body, handlers=handlers) if any(
                self.mentioned(statement) for statement in body
            ):
                self._names.update(handler.name for handler in handlers if handler.name)
                self._bind_assigned(*handlers, *node.orelse)
            case ast.If(test=test) if self.mentioned(test):
                self._bind_assigned(*node.body, *node.orelse)
            case ast.Match(subject=subject, cases=cases) if self.mentioned(subject):
                patterns = [pattern for case in cases for pattern in ast.walk(case.pattern)]
                self._names.update(
                    pattern.name
                    for pattern in patterns
                    if isinstance(pattern, ast.MatchAs | ast.MatchStar) and pattern.name
                )
            case ast.FunctionDef(name=name, body=body) | ast.AsyncFunctionDef(name=name, body=body) if any(
                self.mentioned(statement) for statement in body
            ):
                self._names.add(name)
            case ast.Call(func=ast.Name(id=name), args=arguments) if any(
                self.mentioned(argument) for argument in arguments
            ):
                self._names.update(self._parameters.get(name, ()))
            case ast.Call(func=function, args=arguments):
                if isinstance(function, ast.Attribute) and any(self.mentioned(argument) for argument in arguments):
                    self._bind(function.value)  # as in `results.append(f(1))`
                if self.mentioned(function):
                    self._bind(*arguments)  # the program may change in place what it is given

    def _bind_assigned(self, *nodes: ast.AST) -> None:
        """Follow assignments that depend on what the program returned, as in `except ValueError: raised = True`."""
        for node in nodes:
            self._bind(
                *(target for inner in ast.walk(node) if isinstance(inner, ast.Assign) for target in inner.targets)
            )

    def _bind(self, *targets: ast.AST) -> None:
        for target in targets:
            self._names.update(name for inner in ast.walk(target) if (name := _name(inner)))


def _name(node: ast.AST) -> str | None:
    """Return a variable's name, or an attribute's as `.x`."""
    if isinstance(node, ast.Name):
        return node.id
    return f".{node.attr}" if isinstance(node, ast.Attribute) else None


class _Instrument(ast.NodeTransformer):
    def __init__(self, subject: Subject, fresh: frozenset[str]) -> None:
        self._subject = subject
        self._fresh = fresh
        self._skipped: set[int] = set()

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        truth = constant_truth(node.test)
        report = (ast.Constant(ast.unparse(node.test)), ast.Constant(self._subject.answered(node.test)))
        self.generic_visit(node)
        if truth is True:
            return node
        if isinstance(node.test, ast.Compare) and len(node.test.ops) == 1:
            kind = ast.Constant(type(node.test.ops[0]).__name__)
            node.test = _call(COMPARE, _call(BEGIN), kind, node.test.left, node.test.comparators[0], *report)
        else:
            node.test = _call(DECIDE, _call(BEGIN), node.test, *report)
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.AST | list[ast.AST]:
        fails = ends_in_failure(node)
        self.generic_visit(node)
        reached = (ast.Constant(False), ast.Constant(ast.unparse(node)), ast.Constant(False))
        return [ast.Expr(_call(DECIDE, _call(BEGIN), *reached)), node] if fails else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        counts = is_unittest(node) and id(node) not in self._skipped
        subject = ast.Constant(self._subject.mentioned(node))
        self.generic_visit(node)
        return _call(EXPECTED, _call(BEGIN), node, subject) if counts else node

    def visit_With(self, node: ast.With) -> ast.AST | list[ast.AST]:
        expecting = {id(item.context_expr) for item in node.items if is_unittest(item.context_expr)}
        suppresses = ends_in_failure(node.body[-1])  # as under `contextlib.suppress`
        self._skipped |= expecting  # these only make a context manager; its block's end is what counts
        subject = ast.Constant(any(self._subject.mentioned(statement) for statement in node.body))
        self.generic_visit(node)
        noted = ast.Expr(_call(EXPECTED, _call(BEGIN), ast.Constant(None), subject))
        return [node, noted] if expecting or suppresses else node

    def visit_Try(self, node: ast.Try) -> ast.AST:
        expects, subject = (
            expects_exception(node),
            ast.Constant(any(self._subject.mentioned(statement) for statement in node.body)),
        )
        self.generic_visit(node)
        if expects:
            for handler in node.handlers:
                handler.body.insert(0, ast.Expr(_call(EXPECTED, _call(BEGIN), ast.Constant(None), subject)))
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in self._fresh and isinstance(node.ctx, ast.Load):
            return _call(node.id)
        return node


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])
