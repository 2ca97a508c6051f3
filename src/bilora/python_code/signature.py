"""The signatures that a question shows: those of all that its tests call, so written that an answer may copy them.

A name in an annotation or default that only the reference defines would be a NameError in the answer.
So annotations are written with builtins or left out, constants are written as their value, an import that
a default needs is shown, and a class of the reference's own is shown where the tests need it.
"""

from __future__ import annotations

import ast
import builtins
import copy
from collections.abc import Iterable, Iterator, Sequence

from bilora.python_code.source import Function as Function
from bilora.python_code.source import parse

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.expr
"""What a name is bound to: a function, a class, or the value of an assignment."""

BUILTINS = frozenset(dir(builtins))
GENERICS = {
    **{"List": "list", "Dict": "dict", "Set": "set", "FrozenSet": "frozenset", "Tuple": "tuple", "Type": "type"},
    "Text": "str",
}
"""Names of `typing` that a builtin replaces."""
SHOWN_DECORATORS = {"staticmethod", "classmethod", "property", "dataclass"}


class Unshowable(Exception):
    """Why no signature can be shown, as a sentence."""


def definitions(tree: ast.Module) -> dict[str, Definition]:
    """Return what a module defines at its top level, also within `if`, `try` and `with`; the last definition counts."""
    return dict(_definitions(tree.body))


def _definitions(body: Sequence[ast.stmt]) -> Iterator[tuple[str, Definition]]:
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name, node
            case ast.Assign(targets=targets, value=value):
                yield from ((target.id, value) for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value
            case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
                continue
            case ast.If() | ast.Try() | ast.With() | ast.For() | ast.While():
                first = dict(_definitions(node.body))
                others = [getattr(node, "orelse", ()), *(one.body for one in getattr(node, "handlers", ()))]
                yield from first.items()
                for other in others:  # the way not taken, by the look of it
                    yield from ((name, value) for name, value in _definitions(other) if name not in first)
                yield from _definitions(getattr(node, "finalbody", ()))


def imports(tree: ast.Module) -> dict[str, str]:
    """Return the import statement that gives each imported name."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                one = copy.copy(node)
                one.names = [alias]
                found[alias.asname or alias.name.partition(".")[0]] = ast.unparse(one)
    return found


def free_names(node: ast.AST) -> set[str]:
    """Return the names that are read and not bound anywhere within."""
    read, bound = set(), set()
    for part in ast.walk(node):
        match part:
            case ast.Name(id=name, ctx=ast.Load()):
                read.add(name)
            case ast.Name(id=name):
                bound.add(name)
            case ast.arg(arg=name):
                bound.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
            case ast.alias():
                bound.add(part.asname or part.name.partition(".")[0])
    return read - bound


def called_name(tree: ast.Module, test: str) -> str | None:
    """Return the name that a test calls: of several the first function in the code, else the first class."""
    parsed = parse(test)
    if parsed is None:
        return None
    known = definitions(tree)
    called = {
        node.func.id for node in ast.walk(parsed) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    used = free_names(parsed) | called
    found = [name for name in known if name in called] + [name for name in known if name in used]
    return next((name for name in found if not isinstance(known[name], ast.ClassDef)), next(iter(found), None))


def visible_signatures(tree: ast.Module, name: str, tests: Iterable[str], *, given: ast.Module | None = None) -> str:
    """Return the signature of `name`, and below it those of all else in the code that the tests need.

    What `given` defines, the answer need not.

    Raises:
        Unshowable: an answer could not keep to what would be shown.
    """
    writer = _Writer(tree)
    used = {other for test in tests if (parsed := parse(test)) for other in free_names(parsed)}
    if given:
        used -= {*definitions(given), *imports(given)}
    names = [name, *(other for other in writer.known if other in used and other != name)]
    lines = [line for one in names for line in writer.lines(one)]
    return "\n".join([*sorted(writer.needed), *lines])


class _Writer:
    """Writes signatures of one module; `needed` collects the imports that they need."""

    def __init__(self, tree: ast.Module) -> None:
        self.known = definitions(tree)
        self.needed: set[str] = set()
        self._imports = imports(tree)

    def lines(self, name: str) -> list[str]:
        value = self.known[name]
        if isinstance(value, ast.ClassDef):
            return self._class(value, name)
        if isinstance(value, Function):
            return [self._function(value, name)]
        if _is_literal(value):
            return [f"{name} = {ast.unparse(value)}"]
        arguments = self._arguments_of(value)
        if arguments is None:
            raise Unshowable(f"{name} is {ast.unparse(value)[:60]}, whose parameters the code does not show")
        return [f"def {name}({self._arguments(arguments)}):"]

    def _arguments_of(self, value: ast.expr) -> ast.arguments | None:
        """Return the parameters of a lambda, of another name for a function, or of a partial call of one."""
        match value:
            case ast.Lambda(args=arguments):
                return arguments
            case ast.Name(id=other) if other in self.known:
                named = self.known[other]
                if isinstance(named, Function):
                    return named.args
                return self._arguments_of(named) if isinstance(named, ast.Lambda) else None
            case ast.Call(
                func=ast.Name(id="partial") | ast.Attribute(attr="partial"),
                args=[ast.Name() as function, *given],
                keywords=[],
            ) if not any(isinstance(one, ast.Starred) for one in given):
                whole = self._arguments_of(function)
                if whole is None or whole.posonlyargs or len(given) > len(whole.args):
                    return None
                rest = copy.copy(whole)
                rest.args = whole.args[len(given) :]
                rest.defaults = whole.defaults[-len(rest.args) :] if rest.args else []
                return rest
        return None

    def _function(self, node: Function, name: str) -> str:
        keyword = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
        return f"{keyword} {name}({self._arguments(node.args)}):"

    def _class(self, node: ast.ClassDef, name: str) -> list[str]:
        bases = [ast.unparse(self._value(base, name)) for base in node.bases]
        head = f"class {name}({', '.join(bases)}):" if bases else f"class {name}:"
        body = []
        for part in node.body:
            match part:
                case ast.FunctionDef() | ast.AsyncFunctionDef() if _is_public(part.name):
                    body += [*self._decorators(part.decorator_list), self._function(part, part.name)]
                case ast.AnnAssign(target=ast.Name(id=field), annotation=annotation):
                    kind = self._annotation(annotation) or ast.Name("object")
                    default = f" = {ast.unparse(self._value(part.value, field))}" if part.value else ""
                    body.append(f"{field}: {ast.unparse(kind)}{default}")
                case ast.Assign() if _is_literal(part.value):
                    body.append(ast.unparse(part))
        return [*self._decorators(node.decorator_list), head, *(f"    {line}" for line in body or ["pass"])]

    def _decorators(self, decorators: Sequence[ast.expr]) -> Iterator[str]:
        for decorator in decorators:
            named = decorator.func if isinstance(decorator, ast.Call) else decorator
            last = named.attr if isinstance(named, ast.Attribute) else getattr(named, "id", "")
            if last in SHOWN_DECORATORS:
                yield f"@{ast.unparse(self._value(decorator, last))}"
            elif last == "setter":
                yield f"@{ast.unparse(decorator)}"

    def _arguments(self, arguments: ast.arguments) -> str:
        plain = copy.deepcopy(arguments)
        every = [*plain.posonlyargs, *plain.args, *plain.kwonlyargs, plain.vararg, plain.kwarg]
        for argument in every:
            if argument is not None and argument.annotation is not None:
                argument.annotation = self._annotation(argument.annotation)
        plain.defaults = [self._value(value, "a default") for value in plain.defaults]
        plain.kw_defaults = [value and self._value(value, "a default") for value in plain.kw_defaults]
        return ast.unparse(plain)

    def _value(self, value: ast.expr, place: str) -> ast.expr:
        """Return an expression in builtins, imported names and literals alone.

        Raises:
            Unshowable: it needs something else of the code.
        """
        constants = {}
        for name in sorted(free_names(value)):
            own = self.known.get(name)
            if isinstance(own, ast.expr) and _is_literal(own):
                constants[name] = own
            elif own is None and name in self._imports:
                self.needed.add(self._imports[name])
            elif own is not None or name not in BUILTINS:
                raise Unshowable(f"{place} in the signature needs {name}, which an answer does not have")
        return _Constants(constants).visit(copy.deepcopy(value)) if constants else value

    def _annotation(self, node: ast.expr) -> ast.expr | None:
        """Return an annotation in builtins alone; None if it cannot be written so."""
        match node:
            case ast.Constant():
                return node
            case ast.Name(id=name) | ast.Attribute(value=ast.Name(), attr=name):
                if name in self.known:
                    return None
                if isinstance(node, ast.Name) and name in BUILTINS:
                    return node
                return ast.Name(GENERICS[name]) if name in GENERICS else None
            case ast.Subscript(value=ast.Name(id="Optional") | ast.Attribute(attr="Optional"), slice=inner):
                return self._union([inner, ast.Constant(None)])
            case ast.Subscript(value=ast.Name(id="Union") | ast.Attribute(attr="Union"), slice=ast.Tuple(elts=parts)):
                return self._union(parts)
            case ast.Subscript(value=value, slice=inner):
                generic, of = self._annotation(value), self._annotation(inner)
                return ast.Subscript(generic, of) if generic and of else generic
            case ast.Tuple(elts=parts):
                plain = [one for part in parts if (one := self._annotation(part))]
                return ast.Tuple(plain) if len(plain) == len(parts) else None
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return self._union([left, right])
        return None

    def _union(self, parts: Sequence[ast.expr]) -> ast.expr | None:
        """Join types by `|`, which a quoted type does not support."""
        whole: ast.expr | None = None
        for part in parts:
            plain = self._annotation(part)
            if plain is None or (isinstance(plain, ast.Constant) and plain.value is not None):
                return None
            whole = ast.BinOp(whole, ast.BitOr(), plain) if whole else plain
        return whole


class _Constants(ast.NodeTransformer):
    """Puts values in the place of names."""

    def __init__(self, values: dict[str, ast.expr]) -> None:
        self._values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._values.get(node.id, node)


def _is_literal(value: ast.expr) -> bool:
    try:
        ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _is_public(name: str) -> bool:
    return not name.startswith("_") or (name.startswith("__") and name.endswith("__"))
