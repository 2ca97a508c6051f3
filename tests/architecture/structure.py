"""Structural counts of src and their limits: `python tests/architecture/structure.py`, or `make structure`.

It prints each count with its limit, then the locations that exceed a limit. test_structure.py enforces the limits.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from import_graph import ImportGraph

SRC = Path(__file__).resolve().parents[2] / "src"
LONGEST_MODULE = 319
MOST_PARAMETERS = 8
LONGEST_FUNCTION = 40
"""Limit for training/run.py, in lines from `def` or the first decorator to the end."""

REGISTRIES = {
    "bilora.bases.kinds": "BASE",
    "bilora.sources.kinds": "SOURCE",
    "bilora.tasks": "TASK",
    "bilora.training.phases": "PHASE",
}
"""The packages whose modules all define the same constant, which their registry reads."""

RESULT_PACKAGES = ("bilora.evaluation", "bilora.publishing", "bilora.results")
"""String subscripts are counted in these packages and in every module that imports one of them, also in a function."""


@dataclass(frozen=True)
class Module:
    """One module's name, text and syntax tree."""

    name: str
    text: str
    tree: ast.Module

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def file(self) -> str:
        return self.name.removeprefix("bilora.").replace(".", "/")


@dataclass(frozen=True)
class Count:
    """One row of the table: a number, its limit, and the locations that contribute to it, the worst first."""

    label: str
    value: float
    limit: float
    locations: list[str]

    @property
    def within_limit(self) -> bool:
        return self.value <= self.limit


def read_modules(src: Path = SRC) -> list[Module]:
    """Return all modules of the package below `src`."""
    texts = {name: path.read_text(encoding="utf-8") for name, path in ImportGraph(src).paths.items()}
    return [Module(name, text, ast.parse(text)) for name, text in texts.items()]


def count_structure(src: Path = SRC) -> list[Count]:
    """Return all counts on the package below `src`."""
    modules = read_modules(src)
    graph = ImportGraph(src)
    verbs = typer_verbs(modules)
    lines = sum(len(module.lines) for module in modules)
    any_tokens = [(count_any(module), module.file) for module in modules]
    subscripts = [(len(result_subscripts(module, graph)), module.file) for module in modules]
    long_functions = [row for module in modules if module.file == "training/run" for row in function_lengths(module)]
    wide = [location for module in modules for location in wide_functions(module, verbs)]
    shared = shared_names(modules, verbs)
    skips = [location for module in modules for location in skips_outside_data(module)]
    circles = [", ".join(group) for group in graph.circles()]
    sizes = [(len(module.lines), module.file) for module in modules]
    return [
        Count("`Any` per 1,000 lines", round(1000 * sum(n for n, _ in any_tokens) / lines, 1), 12, worst(any_tokens)),
        Count(f"functions with more than {MOST_PARAMETERS} parameters", len(wide), 0, wide),
        Count("string subscripts into results", sum(n for n, _ in subscripts), 20, worst(subscripts)),
        Count("public names defined in two modules", len(shared), 0, shared),
        Count("`# fmt: skip` outside data", len(skips), 0, skips),
        Count("import circles", len(circles), 0, circles),
        Count("longest function of training/run.py", longest(long_functions), LONGEST_FUNCTION, worst(long_functions)),
        Count("longest module", longest(sizes), LONGEST_MODULE, worst(sizes)),
    ]


def worst(numbered: list[tuple[int, str]]) -> list[str]:
    """Return locations with their numbers, the largest first, without zeros."""
    return [f"{location} {number}" for number, location in sorted(numbered, reverse=True) if number]


def longest(numbered: list[tuple[int, str]]) -> int:
    """Return the largest number; 0 if there is none."""
    return max((number for number, _ in numbered), default=0)


def count_any(module: Module) -> int:
    """Count the tokens `Any`, its import included; strings and comments do not count."""
    tokens = tokenize.generate_tokens(io.StringIO(module.text).readline)
    return sum(token.type == tokenize.NAME and token.string == "Any" for token in tokens)


def typer_verbs(modules: list[Module]) -> set[str]:
    """Return the functions of cli that are registered as commands: `@app.command()` or `app.command()(module.verb)`."""
    verbs = set()
    for module in modules:
        if not module.name.startswith("bilora.cli"):
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef) and any(_registers(decorator) for decorator in node.decorator_list):
                verbs.add(node.name)
            elif isinstance(node, ast.Call) and _registers(node.func):
                verbs |= {_last_name(argument) for argument in node.args}
    return verbs


def _registers(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"command", "callback"}
    )


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def wide_functions(module: Module, verbs: set[str]) -> list[str]:
    """Return the functions with too many parameters, not counting `self` and `cls`.

    CLI verbs are excluded, because their parameters are their options.
    """
    locations = []
    for function in functions(module.tree):
        parameters = function.args
        arguments = [*parameters.posonlyargs, *parameters.args, *parameters.kwonlyargs]
        arguments += [argument for argument in (parameters.vararg, parameters.kwarg) if argument]
        names = [argument.arg for argument in arguments]
        count = len(names) - (names[:1] in (["self"], ["cls"]))
        is_verb = module.name.startswith("bilora.cli") and function.name in verbs
        if count > MOST_PARAMETERS and not is_verb:
            locations.append(f"{module.file}:{function.lineno} {function.name} {count}")
    return locations


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield all functions and methods, nested ones included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def function_lengths(module: Module) -> list[tuple[int, str]]:
    """Return each function's length in lines, with its decorators and docstring."""
    lengths = []
    for function in functions(module.tree):
        first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
        lengths.append(((function.end_lineno or first) - first + 1, function.name))
    return lengths


def result_subscripts(module: Module, graph: ImportGraph) -> list[str]:
    """Return the subscripts `x["name"]`, read or written, of a module that works on results.

    The type of `x` does not matter, so untyped values count as well. `Literal["name"]` does not count.
    """
    users = {module.name, *graph.edges[module.name]}
    if not any(name == package or name.startswith(f"{package}.") for name in users for package in RESULT_PACKAGES):
        return []
    return [
        f"{module.file}:{node.lineno}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Subscript)
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.slice.value, str)
        and _last_name(node.value) != "Literal"
    ]


def shared_names(modules: list[Module], verbs: set[str]) -> list[str]:
    """Return the public names that two modules define, with the modules.

    Exceptions are the constants of registries, and in cli the verbs and Typer's `app` and `main`.
    """
    owners = defaultdict(list)
    for module in modules:
        in_cli = module.name.startswith("bilora.cli")
        excepted = verbs | {"app", "main"} if in_cli else {REGISTRIES.get(module.name.rpartition(".")[0])}
        for name in sorted(set(defined_names(module.tree.body)) - excepted):
            if not name.startswith("_"):
                owners[name].append(module.file)
    return [f"{name}: {', '.join(files)}" for name, files in sorted(owners.items()) if len(files) > 1]


def defined_names(body: list[ast.stmt]) -> Iterator[str]:
    """Yield the functions, classes and variables that a module defines at its top level, also within `if` and `try`."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.name
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for target in targets:
                yield from (
                    node.id
                    for node in ast.walk(target)
                    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
                )
        else:
            for block in ("body", "orelse", "finalbody", "handlers", "cases"):
                yield from defined_names(getattr(statement, block, []))


def skips_outside_data(module: Module) -> list[str]:
    """Return the `# fmt: skip` that are not in a table of data: a module-level constant of literals only."""
    tables = [
        range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)
        for statement in module.tree.body
        if isinstance(statement, ast.Assign | ast.AnnAssign) and _is_data(statement.value)
    ]
    return [
        f"{module.file}:{number}"
        for number, line in enumerate(module.lines, start=1)
        if "# fmt: skip" in line and not any(number in table for table in tables)
    ]


def _is_data(value: ast.expr | None) -> bool:
    """Return whether an expression is a collection of literals, or of calls and names for one row or value each."""
    allowed = (
        ast.Dict, ast.List, ast.Tuple, ast.Set, ast.Constant, ast.UnaryOp, ast.USub, ast.Call, ast.keyword, ast.Name,
        ast.Load, ast.Attribute, ast.Starred,
    )  # fmt: skip
    return isinstance(value, ast.Dict | ast.List | ast.Tuple | ast.Set) and all(
        isinstance(node, allowed) for node in ast.walk(value)
    )


def main() -> None:
    """Print the counts, their limits, and the locations of the counts above their limits."""
    counts = count_structure()
    width = max(len(count.label) for count in counts)
    for count in counts:
        print(
            f"{count.label:{width}}  {count.value:>6g}  at most {count.limit:<4g}"
            f"{'' if count.within_limit else '  exceeded'}"
        )
    for count in counts:
        if not count.within_limit:
            print(f"\n{count.label}:")
            print("\n".join(f"  {location}" for location in count.locations[:40]))


if __name__ == "__main__":
    main()
