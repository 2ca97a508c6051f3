"""Static analysis of Python source."""

from __future__ import annotations

import ast
import builtins
import re
import symtable
import warnings
from collections.abc import Callable, Iterable, Iterator

from bilora.python_code.source import Function as Function
from bilora.python_code.source import parse as parse

LITERAL = re.compile(
    r"#[^\n]*"
    r'|"""(?:[^"\\]|\\.|"(?!""))*(?:"""|\\?\Z)'
    r"|'''(?:[^'\\]|\\.|'(?!''))*(?:'''|\\?\Z)"
    r'|"(?:[^"\\\n]|\\.)*"?'
    r"|'(?:[^'\\\n]|\\.)*'?",
    re.DOTALL,
)
"""A comment or a string, closed or not. It takes linear time, because what follows a repetition always matches.

Do not use possessive quantifiers: Python before 3.11.5 (such as Debian 12's) matches them wrongly.
"""


def outside_literals(change: Callable[[str], str], code: str) -> str:
    """Return the code with `change` applied between strings and comments."""
    parts, end = [], 0
    for literal in LITERAL.finditer(code):
        parts += [change(code[end : literal.start()]), literal[0]]
        end = literal.end()
    return "".join((*parts, change(code[end:])))


def bindings(statements: Iterable[ast.stmt]) -> set[str]:
    """Return the names that top-level statements bind, also inside `if`, `try`, `with` and loops."""
    names: set[str] = set()
    for node in _own_scope(each for each in statements if not isinstance(each, ast.Expr)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def _own_scope(statements: Iterable[ast.stmt]) -> Iterator[ast.AST]:
    pending: list[ast.AST] = list(statements)
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            pending.extend(ast.iter_child_nodes(node))


def is_stub(function: Function) -> bool:
    """Return whether a function's body is only a docstring, `...`, `pass` or NotImplementedError."""
    return all(_does_nothing(statement) for statement in function.body)


def _does_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Raise):
        raised = statement.exc.func if isinstance(statement.exc, ast.Call) else statement.exc
        return isinstance(raised, ast.Name) and raised.id == "NotImplementedError"
    constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return constant or isinstance(statement, ast.Pass)


def returns(function: Function) -> bool:
    """Return whether a function contains a `return` or `yield`, not counting nested functions."""
    return any(isinstance(node, ast.Return | ast.Yield | ast.YieldFrom) for node in _own_scope(function.body))


def implements(tree: ast.Module, name: str) -> bool:
    """Return whether a module defines `name` as a function or class, or as an alias of one."""
    return any(_defines(statement, name) for statement in _own_scope(tree.body))


def _defines(node: ast.AST, name: str) -> bool:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return node.name == name and not is_stub(node)
        case ast.ClassDef():
            return node.name == name
        case ast.Assign(value=ast.Lambda() | ast.Name() | ast.Attribute()):
            return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
        case ast.AnnAssign(target=ast.Name(id=target), value=ast.Lambda() | ast.Name() | ast.Attribute()):
            return target == name
    return False


def is_placeholder(statement: ast.stmt) -> bool:
    """Return whether a statement is a stub or an import, so that its definition is elsewhere."""
    if isinstance(statement, Function):
        return is_stub(statement)
    return isinstance(statement, ast.Import | ast.ImportFrom)


def has_stray_marks(tree: ast.Module) -> bool:
    """Return whether a module contains words like `python`, `[DONE]` or `total.py` that happen to be expressions."""
    stray: set[str] = set()
    for statement in tree.body:
        value = statement.value if isinstance(statement, ast.Expr) else None
        if _is_file_name(value):
            return True
        items = value.elts if isinstance(value, ast.List) else [value]
        names = [item.id for item in items if isinstance(item, ast.Name)]
        stray.update(names if len(names) == len(items) else ())
    return bool(stray) and not bindings(tree.body).issuperset(stray)


def _is_file_name(value: ast.expr | None) -> bool:
    """Return whether an expression has the form `total.py` or `src/total.py`."""
    while isinstance(value, ast.BinOp) and isinstance(value.op, ast.Div):
        value = value.right
    return isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name) and value.attr == "py"


def defines_code(tree: ast.Module) -> bool:
    """Return whether a module defines a function or a class."""
    return any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for node in _own_scope(tree.body)
    )


def needed_names(code: str) -> set[str]:
    """Return the names that a program reads but does not bind, except builtins."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = symtable.symtable(code, "<answer>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return set()
    bound = {symbol.get_name() for symbol in module.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    read: set[str] = set()
    tables = [module]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        read.update(
            symbol.get_name()
            for symbol in table.get_symbols()
            if symbol.is_referenced() and (table is module or symbol.is_global())
        )
    return read - bound - set(dir(builtins))
