"""The import graph of the package, read from its source without importing it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from pathlib import Path

PACKAGE = "bilora"
REGISTRY_CALLS = {"load_kind": None, "load_task": f"{PACKAGE}.tasks"}
"""Functions that import a module by name, with the package they import from; None: their first argument names it.

`load_kind(…).settings` does not count: it reads a type of params, whose values a stage lists under `params`.
"""

BY_COMPUTED_NAME = (f"{PACKAGE}.plugins", f"{PACKAGE}.tasks", f"{PACKAGE}.sandbox.")
"""Modules that may import by a computed name: the registries, whose callers are counted instead, and the sandbox, whose
child processes import the modules that a program names. So may the package's `__init__`, for its public names."""


class UnreadableImport(Exception):
    """An import whose target cannot be read from the source."""


class ImportGraph:
    """The modules of the package that each module imports; imports under `if TYPE_CHECKING` do not count.

    `src` is the folder that contains the package.
    """

    def __init__(self, src: Path) -> None:
        self.src = src
        self.paths = {_module_name(path, src): path for path in sorted((src / PACKAGE).rglob("*.py"))}
        self.trees = {module: _parsed(path.read_text(encoding="utf-8")) for module, path in self.paths.items()}

    @cached_property
    def edges(self) -> dict[str, set[str]]:
        """Per module: the modules that it imports directly, without the packages that contain them.

        Raises:
            UnreadableImport: a module imports by a name that is computed at run time.
        """
        return {module: set(self._imports(module)) - {module} for module in self.paths}

    @cached_property
    def edges_on_load(self) -> dict[str, set[str]]:
        """Per module: the modules that it imports when it is loaded, outside functions."""
        return {module: set(self._imports(module, functions=False)) - {module} for module in self.paths}

    def closure(self, entries: Iterable[str], *, without: Iterable[str] = ()) -> set[str]:
        """Return `entries` and all modules that they import, directly or indirectly, except those in `without`.

        Importing a module also loads the packages that contain it; of these only the imports outside functions count.
        """
        blocked = set(without)
        used, loaded = set[str](), set[str]()
        pending = [(module, True) for module in entries]
        while pending:
            module, is_used = pending.pop()
            if module in blocked or module in (used if is_used else used | loaded):
                continue
            (used if is_used else loaded).add(module)
            edges = self.edges if is_used else self.edges_on_load
            pending += [(target, is_used) for target in edges[module]]
            pending += [(parent, False) for parent in _parents(module) if parent in self.paths]
        return used | loaded

    def members(self, package: str) -> list[str]:
        """Return the package and all modules in it."""
        return [module for module in self.paths if module == package or module.startswith(f"{package}.")]

    def file(self, module: str) -> str:
        """Return the path of a module's file relative to the parent of `src`, as in dvc.yaml."""
        return self.paths[module].relative_to(self.src.parent).as_posix()

    def circles(self) -> list[list[str]]:
        """Return the groups of modules that import each other in a circle when they are loaded."""
        on_load = self.edges_on_load
        reachable = {module: _reachable(module, on_load) for module in on_load}
        groups = {
            tuple(sorted(other for other in reachable[module] if module in reachable[other])) for module in on_load
        }
        return [list(group) for group in sorted(groups) if group]

    def _imports(self, module: str, *, functions: bool = True) -> Iterator[str]:
        nodes = _running_nodes(self.trees[module], functions)
        settings = {id(node.value) for node in nodes if isinstance(node, ast.Attribute) and node.attr == "settings"}
        for node in nodes:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names if alias.name in self.paths)
            elif isinstance(node, ast.ImportFrom):
                yield from self._imported_from(module, node)
            elif isinstance(node, ast.Call) and id(node) not in settings:
                yield from self._registered(module, node)

    def _imported_from(self, module: str, node: ast.ImportFrom) -> Iterator[str]:
        source = self._source(module, node)
        for alias in node.names:
            submodule = f"{source}.{alias.name}"
            if submodule in self.paths or source in self.paths:
                yield submodule if submodule in self.paths else source

    def _source(self, module: str, node: ast.ImportFrom) -> str:
        """Return the absolute name of the module that `from … import` imports from."""
        if not node.level:
            return node.module or ""
        package = module if self.paths[module].name == "__init__.py" else module.rpartition(".")[0]
        parts = package.split(".")[: len(package.split(".")) - node.level + 1]
        return ".".join([*parts, *filter(None, [node.module])])

    def _registered(self, module: str, call: ast.Call) -> Iterator[str]:
        """Yield the modules that a call imports by name."""
        name = _called(call)
        if not call.args or module == PACKAGE or module.startswith(BY_COMPUTED_NAME):
            return
        if name in REGISTRY_CALLS:
            package = REGISTRY_CALLS[name] or self._string(call.args[0], module)
            if package is None:
                raise UnreadableImport(f"{module}:{call.lineno}: {name} must be given its package as a string")
            yield from self.members(package)
        elif name in {"import_module", "__import__"}:
            target = self._string(call.args[0], module)
            if target is None:
                raise UnreadableImport(
                    f"{module}:{call.lineno}: imports by a computed name; use bilora.plugins instead"
                )
            if target in self.paths:
                yield target

    def _string(self, node: ast.expr, module: str) -> str | None:
        """Return the value of a string literal, or of a constant that the module defines or imports."""
        if isinstance(node, ast.Constant) or not isinstance(node, ast.Name):
            value = getattr(node, "value", None)
            return value if isinstance(value, str) else None
        for statement in self.trees[module].body:
            if isinstance(statement, ast.Assign) and node.id in map(_called, statement.targets):
                return self._string(statement.value, module)
            if isinstance(statement, ast.ImportFrom) and node.id in {alias.name for alias in statement.names}:
                source = self._source(module, statement)
                return self._string(node, source) if source in self.paths else None
        return None


@cache
def _parsed(source: str) -> ast.Module:
    return ast.parse(source)


@cache
def _running_nodes(tree: ast.Module, functions: bool) -> list[ast.AST]:
    """Return the nodes of a module that import something, call something, or name an attribute."""
    kinds = (ast.Import, ast.ImportFrom, ast.Call, ast.Attribute)
    return [node for node in _nodes(tree, functions=functions) if isinstance(node, kinds)]


def _module_name(path: Path, src: Path) -> str:
    parts = path.relative_to(src).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _reachable(start: str, edges: dict[str, set[str]]) -> set[str]:
    pending, reached = list(edges[start]), set[str]()
    while pending:
        module = pending.pop()
        if module not in reached:
            reached.add(module)
            pending += edges[module]
    return reached


def _nodes(node: ast.AST, *, functions: bool) -> Iterator[ast.AST]:
    """Yield the nodes below `node` that run; nodes in functions only if `functions` is true."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and _called(child.test) == "TYPE_CHECKING":
            for statement in child.orelse:
                yield statement
                yield from _nodes(statement, functions=functions)
        elif functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _nodes(child, functions=functions)


def _called(node: ast.AST) -> str | None:
    """Return the last part of a name, of an attribute, or of the function that a call names."""
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None
