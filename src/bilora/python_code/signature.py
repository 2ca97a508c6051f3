"""The signatures in a prompt: those of all names that its tests use, in a form that an answer can copy.

A name in an annotation or default that only the reference defines would raise NameError in the answer. So an
annotation uses only builtins or is omitted, a constant is replaced by its value, an import that a default needs
is added, and so is a class of the reference that the tests need.
"""

from __future__ import annotations

import ast
import builtins
import copy
from collections.abc import Iterable, Iterator, Sequence

from bilora.python_code.source import Function as Function
from bilora.python_code.source import parse

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.expr
"""The object that a name is bound to: a function, a class, or the value of an assignment."""

BUILTINS = frozenset(dir(builtins))
GENERICS = {
    **{"List": "list", "Dict": "dict", "Set": "set", "FrozenSet": "frozenset", "Tuple": "tuple", "Type": "type"},
    "Text": "str",
}
"""Names of `typing` and the builtins that replace them."""
PROMPT_DECORATORS = {"staticmethod", "classmethod", "property", "dataclass"}


class UnportableSignature(Exception):
    """A sentence that says why a signature cannot be written so that an answer can copy it."""


def definitions(tree: ast.Module) -> dict[str, Definition]:
    """Return a module's top-level definitions, also those in `if`, `try` and `with`; the last of a name counts."""
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
                others = [getattr(node, "orelse", ()), *(handler.body for handler in getattr(node, "handlers", ()))]
                yield from first.items()
                for other in others:  # presumably the branch not taken
                    yield from ((name, value) for name, value in _definitions(other) if name not in first)
                yield from _definitions(getattr(node, "finalbody", ()))


def imports(tree: ast.Module) -> dict[str, str]:
    """Return the import statement of each imported name."""
    statements = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                statement = copy.copy(node)
                statement.names = [alias]
                statements[alias.asname or alias.name.partition(".")[0]] = ast.unparse(statement)
    return statements


def free_names(node: ast.AST) -> set[str]:
    """Return the names that a tree reads but does not bind."""
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
    """Return the name that a test calls; of several, the code's first function, else its first class."""
    parsed = parse(test)
    if parsed is None:
        return None
    defined = definitions(tree)
    called = {
        node.func.id for node in ast.walk(parsed) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    used = free_names(parsed) | called
    names = [name for name in defined if name in called] + [name for name in defined if name in used]
    return next((name for name in names if not isinstance(defined[name], ast.ClassDef)), next(iter(names), None))


def prompt_signatures(tree: ast.Module, name: str, tests: Iterable[str], *, setup: ast.Module | None = None) -> str:
    """Return the signature of `name` and those of all other definitions that the tests need.

    Definitions in `setup` are omitted.

    Raises:
        UnportableSignature: a signature cannot be written so that an answer can copy it.
    """
    writer = _Writer(tree)
    used = {other for test in tests if (parsed := parse(test)) for other in free_names(parsed)}
    if setup:
        used -= {*definitions(setup), *imports(setup)}
    names = [name, *(other for other in writer.definitions if other in used and other != name)]
    lines = [line for written in names for line in writer.lines(written)]
    return "\n".join([*sorted(writer.imports_needed), *lines])


class _Writer:
    """Writes the signatures of a module; `needed` collects their imports."""

    def __init__(self, tree: ast.Module) -> None:
        self.definitions = definitions(tree)
        self.imports_needed: set[str] = set()
        self._imports = imports(tree)

    def lines(self, name: str) -> list[str]:
        value = self.definitions[name]
        if isinstance(value, ast.ClassDef):
            return self._class(value, name)
        if isinstance(value, Function):
            return [self._function(value, name)]
        if _is_literal(value):
            return [f"{name} = {ast.unparse(value)}"]
        arguments = self._arguments_of(value)
        if arguments is None:
            raise UnportableSignature(f"{name} is {ast.unparse(value)[:60]}, whose parameters the code does not show")
        return [f"def {name}({self._arguments(arguments)}):"]

    def _arguments_of(self, value: ast.expr) -> ast.arguments | None:
        """Return the parameters of a lambda, of an alias of a function, or of its `partial`."""
        match value:
            case ast.Lambda(args=arguments):
                return arguments
            case ast.Name(id=other) if other in self.definitions:
                named = self.definitions[other]
                if isinstance(named, Function):
                    return named.args
                return self._arguments_of(named) if isinstance(named, ast.Lambda) else None
            case ast.Call(
                func=ast.Name(id="partial") | ast.Attribute(attr="partial"),
                args=[ast.Name() as function, *bound],
                keywords=[],
            ) if not any(isinstance(argument, ast.Starred) for argument in bound):
                whole = self._arguments_of(function)
                if whole is None or whole.posonlyargs or len(bound) > len(whole.args):
                    return None
                remaining = copy.copy(whole)
                remaining.args = whole.args[len(bound) :]
                remaining.defaults = whole.defaults[-len(remaining.args) :] if remaining.args else []
                return remaining
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
            if last in PROMPT_DECORATORS:
                yield f"@{ast.unparse(self._value(decorator, last))}"
            elif last == "setter":
                yield f"@{ast.unparse(decorator)}"

    def _arguments(self, arguments: ast.arguments) -> str:
        portable = copy.deepcopy(arguments)
        every = [*portable.posonlyargs, *portable.args, *portable.kwonlyargs, portable.vararg, portable.kwarg]
        for argument in every:
            if argument is not None and argument.annotation is not None:
                argument.annotation = self._annotation(argument.annotation)
        portable.defaults = [self._value(value, "a default") for value in portable.defaults]
        portable.kw_defaults = [value and self._value(value, "a default") for value in portable.kw_defaults]
        return ast.unparse(portable)

    def _value(self, value: ast.expr, part: str) -> ast.expr:
        """Return an expression that uses only builtins, imported names and literals.

        Raises:
            UnportableSignature: it needs another name of the code.
        """
        constants = {}
        for name in sorted(free_names(value)):
            definition = self.definitions.get(name)
            if isinstance(definition, ast.expr) and _is_literal(definition):
                constants[name] = definition
            elif definition is None and name in self._imports:
                self.imports_needed.add(self._imports[name])
            elif definition is not None or name not in BUILTINS:
                raise UnportableSignature(f"{part} in the signature needs {name}, which an answer does not have")
        return _Constants(constants).visit(copy.deepcopy(value)) if constants else value

    def _annotation(self, node: ast.expr) -> ast.expr | None:
        """Return an annotation that uses only builtins, or None if that is impossible."""
        match node:
            case ast.Constant():
                return node
            case ast.Name(id=name) | ast.Attribute(value=ast.Name(), attr=name):
                if name in self.definitions:
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
                portable = [annotation for part in parts if (annotation := self._annotation(part))]
                return ast.Tuple(portable) if len(portable) == len(parts) else None
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return self._union([left, right])
        return None

    def _union(self, parts: Sequence[ast.expr]) -> ast.expr | None:
        """Return types joined by `|`, or None if one is quoted, which `|` does not support."""
        whole: ast.expr | None = None
        for part in parts:
            portable = self._annotation(part)
            if portable is None or (isinstance(portable, ast.Constant) and portable.value is not None):
                return None
            whole = ast.BinOp(whole, ast.BitOr(), portable) if whole else portable
        return whole


class _Constants(ast.NodeTransformer):
    """Replaces names by values."""

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
