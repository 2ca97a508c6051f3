"""Rewrite a test so that its asserts report the values that they compare."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from bilora.sandbox.assertions import FunctionNode, always_fails, constant_truth, expects_exception, is_unittest_assert
from bilora.sandbox.program_names import CANDIDATE_NAME

BEGIN, COMPARE, DECIDE, EXPECTATION = "_bilora_begin", "_bilora_compare", "_bilora_decide", "_bilora_expected"
"""Names of the recorder's methods in an instrumented test; see `instrument`."""


def instrument(tree: ast.Module, tracked: TrackedNames, dynamic_names: Iterable[str] = ()) -> ast.Module:
    """Return a test in which each assert that can fail reports the values that it compares to a recorder.

    `assert LEFT == RIGHT` becomes `assert COMPARE(BEGIN(), "Eq", LEFT, RIGHT, TEXT, MENTIONS)`, other asserts
    `assert DECIDE(BEGIN(), TEST, TEXT, MENTIONS)`; TEXT is the assert's source, MENTIONS whether it uses a value
    of the program. The handler of an expected exception begins with `EXPECTATION()`.

    Args:
        tracked: updated with the bindings of this tree.
        dynamic_names: names of plain data in the program; each use becomes a call that looks up the current value.
    """
    tracked.track(tree)
    rewritten = _Instrument(tracked, frozenset(dynamic_names)).visit(tree)
    return ast.fix_missing_locations(rewritten)  # type: ignore[no-any-return]


class TrackedNames:
    """The names whose values come from the program, directly or through assignments."""

    def __init__(self, roots: Iterable[str]) -> None:
        self._roots = {*roots, CANDIDATE_NAME}
        self._names = {*self._roots, ".stdout", ".getvalue"}  # what the program printed
        self._parameters: dict[str, list[str]] = {}

    def track(self, tree: ast.AST) -> None:
        """Add every name of a tree that is bound to a value of the program."""
        self._parameters |= {
            node.name: [arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            for node in ast.walk(tree)
            if isinstance(node, FunctionNode)
        }
        before = -1
        while before != len(self._names):
            before = len(self._names)
            for node in ast.walk(tree):
                self._track_node(node)

    def uses_name(self, node: ast.AST | None) -> bool:
        """Return whether an expression uses one of the names."""
        return node is not None and any(_name(inner) in self._names for inner in ast.walk(node))

    def uses_result(self, node: ast.AST) -> bool:
        """Return whether an expression uses a value that the program returned, not only a name that it defines."""
        return any(_name(inner) in self._names - self._roots for inner in ast.walk(node))

    def _track_node(self, node: ast.AST) -> None:
        match node:
            case ast.Assign(targets=targets, value=value) if self.uses_name(value):
                self._bind(*targets)
            case (
                ast.AnnAssign(target=target, value=value)
                | ast.AugAssign(target=target, value=value)
                | ast.NamedExpr(target=target, value=value)
            ) if self.uses_name(value):
                self._bind(target)
            case ast.For(target=target, iter=iterated) | ast.comprehension(target=target, iter=iterated) if (
                self.uses_name(iterated)
            ):
                self._bind(target)
            case ast.withitem(context_expr=context, optional_vars=ast.expr() as target) if self.uses_name(context):
                self._bind(target)
            case ast.Try(body=body, handlers=handlers) | ast.TryStar(body=body, handlers=handlers) if any(
                self.uses_name(statement) for statement in body
            ):
                self._names.update(handler.name for handler in handlers if handler.name)
                self._bind_assigned(*handlers, *node.orelse)
            case ast.If(test=test) if self.uses_name(test):
                self._bind_assigned(*node.body, *node.orelse)
            case ast.Match(subject=subject, cases=cases) if self.uses_name(subject):
                patterns = [pattern for case in cases for pattern in ast.walk(case.pattern)]
                self._names.update(
                    pattern.name
                    for pattern in patterns
                    if isinstance(pattern, ast.MatchAs | ast.MatchStar) and pattern.name
                )
            case ast.FunctionDef(name=name, body=body) | ast.AsyncFunctionDef(name=name, body=body) if any(
                self.uses_name(statement) for statement in body
            ):
                self._names.add(name)
            case ast.Call(func=ast.Name(id=name), args=arguments) if any(
                self.uses_name(argument) for argument in arguments
            ):
                self._names.update(self._parameters.get(name, ()))
            case ast.Call(func=function, args=arguments):
                if isinstance(function, ast.Attribute) and any(self.uses_name(argument) for argument in arguments):
                    self._bind(function.value)  # as in `results.append(f(1))`
                if self.uses_name(function):
                    self._bind(*arguments)  # the program may change its arguments in place

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
    """Return the name of a variable, or `.x` for an attribute x."""
    if isinstance(node, ast.Name):
        return node.id
    return f".{node.attr}" if isinstance(node, ast.Attribute) else None


class _Instrument(ast.NodeTransformer):
    def __init__(self, tracked: TrackedNames, dynamic_names: frozenset[str]) -> None:
        self._tracked = tracked
        self._dynamic_names = dynamic_names
        self._skipped: set[int] = set()

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        truth = constant_truth(node.test)
        text_and_mentions = (ast.Constant(ast.unparse(node.test)), ast.Constant(self._tracked.uses_result(node.test)))
        self.generic_visit(node)
        if truth is True:
            return node
        if isinstance(node.test, ast.Compare) and len(node.test.ops) == 1:
            kind = ast.Constant(type(node.test.ops[0]).__name__)
            node.test = _call(COMPARE, _call(BEGIN), kind, node.test.left, node.test.comparators[0], *text_and_mentions)
        else:
            node.test = _call(DECIDE, _call(BEGIN), node.test, *text_and_mentions)
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.AST | list[ast.AST]:
        fails = always_fails(node)
        self.generic_visit(node)
        reached = (ast.Constant(False), ast.Constant(ast.unparse(node)), ast.Constant(False))
        return [ast.Expr(_call(DECIDE, _call(BEGIN), *reached)), node] if fails else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        counts = is_unittest_assert(node) and id(node) not in self._skipped
        mentions = ast.Constant(self._tracked.uses_name(node))
        self.generic_visit(node)
        return _call(EXPECTATION, _call(BEGIN), node, mentions) if counts else node

    def visit_With(self, node: ast.With) -> ast.AST | list[ast.AST]:
        expecting = {id(item.context_expr) for item in node.items if is_unittest_assert(item.context_expr)}
        suppresses = always_fails(node.body[-1])  # as under `contextlib.suppress`
        self._skipped |= expecting  # these calls only make a context manager; the end of its block counts
        mentions = ast.Constant(any(self._tracked.uses_name(statement) for statement in node.body))
        self.generic_visit(node)
        report = ast.Expr(_call(EXPECTATION, _call(BEGIN), ast.Constant(None), mentions))
        return [node, report] if expecting or suppresses else node

    def visit_Try(self, node: ast.Try) -> ast.AST:
        expects = expects_exception(node)
        mentions = ast.Constant(any(self._tracked.uses_name(statement) for statement in node.body))
        self.generic_visit(node)
        if expects:
            for handler in node.handlers:
                handler.body.insert(0, ast.Expr(_call(EXPECTATION, _call(BEGIN), ast.Constant(None), mentions)))
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in self._dynamic_names and isinstance(node.ctx, ast.Load):
            return _call(node.id)
        return node


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])
