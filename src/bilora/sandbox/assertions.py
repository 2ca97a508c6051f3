"""What counts as a test: which asserts say something, and which of them speak of the program's own names."""

from __future__ import annotations

import ast
import builtins
import re
import symtable
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

CANDIDATE = "candidate"
"""What a test may call the function under test, whatever its name is."""
CHECK = "check"
"""The function of HumanEval's form: its one argument is the function to be tested (Chen et al. 2021)."""

BEGIN, COMPARE, DECIDE, EXPECTED = "_bilora_begin", "_bilora_compare", "_bilora_decide", "_bilora_expected"
"""Names under which an instrumented test finds its recorder; see `instrumented`."""

_UNITTEST = re.compile(r"assert[A-Z]\w*|fail[A-Z]\w*")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def parsed(source: str) -> ast.Module | None:
    """Parse a test; None if it is not Python."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@dataclass(frozen=True)
class Names:
    """Names at a module's top level: those that its code `binds`, and those that it `uses` and does not bind."""

    binds: frozenset[str]
    uses: frozenset[str]


def names(sources: Iterable[str]) -> Names:
    """Collect the names of sources that share one module, builtins included; what does not parse has none."""
    binds: set[str] = set()
    uses: set[str] = set()
    for source in sources:
        try:
            _collect(symtable.symtable(source, "<test>", "exec"), binds, uses, top=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return Names(frozenset(binds), frozenset(uses - binds))


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


def of_the_program(used: Iterable[str], bound: Iterable[str], code: str) -> set[str]:
    """Return which of the names that tests use can only come from the program.

    A builtin is the program's only if the code visibly defines one of that name. The code is searched, not
    parsed: it may be made to be slow or impossible to parse.
    """
    free = set(used).difference(bound)
    builtin = {name for name in free if hasattr(builtins, name)}
    return free - builtin.difference(defined_names(code) if builtin else ())


def defined_names(code: str) -> list[str]:
    """Return the names that `def`, `class` or an assignment binds at the beginning of a line, in order."""
    found = re.findall(r"^(?:(?:async[ \t]+)?def|class)[ \t]+(\w+)|^(\w+)[ \t]*(?::[^=\n]*)?=(?!=)", code, re.M)
    return [function or variable for function, variable in found]


def only_function(code: str) -> str | None:
    """Return the name of the function that a `check` without a call means: the only one, else the last."""
    found = re.findall(r"^(?:async[ \t]+)?def[ \t]+(\w+)", code, re.M)
    return found[-1] if found else None


def used_as_modules(sources: Iterable[str], candidates: Iterable[str]) -> set[str]:
    """Return which names stand for modules of the standard library: tests only take attributes of them."""
    found = {name for name in candidates if name in sys.stdlib_module_names}
    if not found:
        return found
    nodes = [node for source in sources if (tree := parsed(source)) for node in ast.walk(tree)]
    bases = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    return found - {node.id for node in nodes if isinstance(node, ast.Name) and id(node) not in bases}


def constant_truth(expression: ast.expr) -> bool | None:
    """Return the truth of an expression that has only one, whatever the program answers; else None."""
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
            truths = [constant_truth(value) for value in values]
            if decisive in truths:
                return decisive
            return None if None in truths else not decisive
        case ast.Compare(left=left, ops=[ast.Eq() | ast.Is() | ast.LtE() | ast.GtE()], comparators=[right]):
            return True if ast.dump(left) == ast.dump(right) else None
        case _:
            return None


def says_something(node: ast.AST) -> bool:
    """Whether a node is an assert, or a call of one of unittest's, whose outcome depends on anything."""
    if isinstance(node, ast.Assert):
        return constant_truth(node.test) is not True
    return _is_unittest(node)


def _is_unittest(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and _UNITTEST.fullmatch(node.func.attr) is not None
        and not (node.func.attr in ("assertTrue", "assertFalse") and len(node.args) > 0 and _fixed(node.args[0]))
    )


def _fixed(expression: ast.expr) -> bool:
    return constant_truth(expression) is not None


def _expects_exception(node: ast.Try) -> bool:
    """Whether reaching a handler is what the test wants: else an `assert False` or the like would have been met."""
    places = [*node.body, *node.orelse]
    return any(
        (isinstance(one, ast.Assert) and constant_truth(one.test) is False)
        or (isinstance(one, ast.Raise) and one.exc is not None and "AssertionError" in ast.dump(one.exc))
        or (isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute) and one.func.attr == "fail")
        for place in places
        for one in ast.walk(place)
    )


def asserts(tree: ast.AST) -> bool:
    """Whether anything in a tree can fail a program that answers wrongly."""
    return any(
        says_something(node) or (isinstance(node, ast.Try) and _expects_exception(node)) for node in ast.walk(tree)
    )


def entry_points(tree: ast.Module) -> Iterator[Function | ast.ClassDef]:
    """Yield the definitions that a test runner calls by itself: `check`, `test…` and test cases of unittest."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            if any("TestCase" in ast.dump(base) for base in node.bases):
                yield node
        elif isinstance(node, Function):
            takes_candidate = len(node.args.posonlyargs + node.args.args) == 1
            if node.name.startswith("test") or (node.name == CHECK and takes_candidate):
                yield node


def called(trees: Iterable[ast.AST]) -> set[str]:
    """Return the plain names that are called anywhere."""
    return {
        node.func.id
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


def silent_test(tests: Sequence[str]) -> str | None:
    """Return the first test that looks like one and asserts nothing, or the first of all if none asserts anything.

    That is a bare comparison, a comparison that is printed, an assert of a tuple or of a constant, and a function
    with asserts that nobody calls. What does not parse is not this rule's business.
    """
    trees = [(test, tree) for test in tests if (tree := parsed(test)) is not None]
    calls = called(tree for _, tree in trees)
    asserting = False
    for test, tree in trees:
        entries = {id(node) for node in entry_points(tree)}
        for node in tree.body:
            if isinstance(node, Function | ast.ClassDef):
                runs = id(node) in entries or node.name in calls
                if asserts(node) and not runs:
                    return test
                asserting |= runs and asserts(node)
            elif _pretends(node):
                return test
            else:
                asserting |= asserts(node)
    return None if asserting else next(iter(tests), None)


def _pretends(node: ast.stmt) -> bool:
    """Whether a statement compares or asserts without any effect."""
    if isinstance(node, ast.Assert):
        return constant_truth(node.test) is True
    compares = isinstance(node, ast.Expr) and any(isinstance(one, ast.Compare) for one in ast.walk(node.value))
    return compares and not asserts(node)


def instrumented(tree: ast.Module, subject: Subject, fresh: Iterable[str] = ()) -> ast.Module:
    """Rewrite a test so that each assert that says something reports to a recorder what it compares.

    `assert LEFT == RIGHT` becomes `assert COMPARE(BEGIN(), "Eq", LEFT, RIGHT, TEXT, MENTIONS)`, other asserts
    `assert DECIDE(BEGIN(), TEST, TEXT, MENTIONS)`; TEXT is the assert's source, MENTIONS whether it uses something
    of the program. A handler that catches what the test expects begins with `EXPECTED()`.

    Args:
        subject: follows the bindings of this tree too.
        fresh: names that are looked up in the program at every use, as a call of the name itself.
    """
    subject.follow(tree)
    rewritten = _Instrument(subject, frozenset(fresh)).visit(tree)
    return ast.fix_missing_locations(rewritten)  # type: ignore[no-any-return]


class Subject:
    """Names that hold what the program gave, followed through assignments until nothing is added."""

    def __init__(self, roots: Iterable[str]) -> None:
        self._names = {*roots, CANDIDATE}
        self._parameters: dict[str, list[str]] = {}

    def follow(self, tree: ast.AST) -> None:
        """Learn from every binding in a tree."""
        self._parameters |= {
            node.name: [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            for node in ast.walk(tree)
            if isinstance(node, Function)
        }
        before = -1
        while before != len(self._names):
            before = len(self._names)
            for node in ast.walk(tree):
                self._learn(node)

    def mentioned(self, node: ast.AST | None) -> bool:
        """Whether an expression uses one of the names."""
        return node is not None and any(_name(one) in self._names for one in ast.walk(node))

    def _learn(self, node: ast.AST) -> None:
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
            case ast.Try(body=body, handlers=handlers) if any(self.mentioned(one) for one in body):
                self._names.update(handler.name for handler in handlers if handler.name)
            case ast.FunctionDef(name=name, body=body) | ast.AsyncFunctionDef(name=name, body=body) if any(
                self.mentioned(one) for one in body
            ):
                self._names.add(name)
            case ast.Call(func=ast.Name(id=name), args=arguments) if any(self.mentioned(one) for one in arguments):
                self._names.update(self._parameters.get(name, ()))
            case ast.Call(func=function, args=arguments) if self.mentioned(function):
                self._bind(*arguments)  # the program may change in place what it is given

    def _bind(self, *targets: ast.AST) -> None:
        for target in targets:
            self._names.update(name for one in ast.walk(target) if (name := _name(one)))


def _name(node: ast.AST) -> str | None:
    """Name a variable, or an attribute as `.x`."""
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
        told = (ast.Constant(ast.unparse(node.test)), ast.Constant(self._subject.mentioned(node.test)))
        self.generic_visit(node)
        if truth is not None:
            return node
        if isinstance(node.test, ast.Compare) and len(node.test.ops) == 1:
            kind = ast.Constant(type(node.test.ops[0]).__name__)
            node.test = _call(COMPARE, _call(BEGIN), kind, node.test.left, node.test.comparators[0], *told)
        else:
            node.test = _call(DECIDE, _call(BEGIN), node.test, *told)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        counts = _is_unittest(node) and id(node) not in self._skipped
        subject = ast.Constant(self._subject.mentioned(node))
        self.generic_visit(node)
        return _call(EXPECTED, _call(BEGIN), node, subject) if counts else node

    def visit_With(self, node: ast.With) -> ast.AST | list[ast.AST]:
        expecting = {id(item.context_expr) for item in node.items if _is_unittest(item.context_expr)}
        self._skipped |= expecting  # these only make a context manager; its block's end is what counts
        subject = ast.Constant(any(self._subject.mentioned(one) for one in node.body))
        self.generic_visit(node)
        return [node, ast.Expr(_call(EXPECTED, _call(BEGIN), ast.Constant(None), subject))] if expecting else node

    def visit_Try(self, node: ast.Try) -> ast.AST:
        expects, subject = (
            _expects_exception(node),
            ast.Constant(any(self._subject.mentioned(one) for one in node.body)),
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
