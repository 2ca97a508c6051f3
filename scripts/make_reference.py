"""Write the pages of docs/reference: params.yaml from its types, the command line and the Python API from the code."""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args, get_origin

import typer
import yaml

import bilora
from bilora.cli import app
from bilora.params import Params

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
NOTE = "<!-- Written by scripts/make_reference.py: change the code instead. -->"
LIMITS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "pattern": "matching `{}`",
}
"""How the bounds of a JSON schema are written."""
NAMES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}

TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}
"""How the types of the command line are written."""
RECORDS = (
    "bilora.bundle.SamplingOptions",
    "bilora.records.Completion",
    "bilora.train_tasks.TrainedAdapter",
    "bilora.records.Program",
    "bilora.records.Outcome",
    "bilora.evaluation.compare.Comparison",
    "bilora.errors.ExitCode",
)
"""The types that public functions take and return."""

Schema = Mapping[str, Any]


def pages() -> dict[str, str]:
    """Return the text of each page, by the name of its file."""
    return {"params.md": _params_page(), "cli.md": _cli_page(), "api.md": _api_page()}


def _page(title: str, *blocks: str) -> str:
    return "\n\n".join((f"# {title}", NOTE, *blocks)) + "\n"


def _table(*rows: tuple[str, ...]) -> str:
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in (lines[0], " | ".join(["---"] * len(rows[0])), *lines[1:]))


# params.yaml


def _params_page() -> str:
    schema = Params.model_json_schema()
    return _page(
        "params.yaml",
        "The keys of each section. A key without a default must be given; an unknown key is an error. `TASK` is a "
        "task's name. `dvc repro` also needs the keys with a default that dvc.yaml names, so start from a complete "
        "file: `bilora profile use NAME`.",
        *_sections("", schema, schema["$defs"]),
    )


def _sections(path: str, schema: Schema, definitions: Schema) -> Iterator[str]:
    """Yield the blocks of a section, then those of the sections below it."""
    kind = schema["properties"].get("kind", {}).get("const")
    yield f"## {path or 'Top level'}{f', kind: {kind}' if kind else ''}"
    yield schema["description"]
    yield _table(("key", "type", "default", "meaning"), *_keys(path, schema, definitions))
    for name, entry in schema["properties"].items():
        below = f"{path}.{name}".removeprefix(".")
        for inner, suffix in _objects(entry, definitions):
            yield from _sections(below + suffix, inner, definitions)


def _keys(path: str, schema: Schema, definitions: Schema) -> Iterator[tuple[str, ...]]:
    """Yield a row of the table per key."""
    for name, entry in schema["properties"].items():
        value = "" if name in schema.get("required", ()) else entry.get("default", [])
        default = f"`{_inline(value)}`" if value != "" else ""
        if isinstance(value, dict):
            default = "those of its keys"
        yield f"`{name}`", _type(entry, definitions), default, entry.get("description", "selects the kind")


def _inline(value: object) -> str:
    """Return a value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


def _objects(entry: Schema, definitions: Schema) -> Iterator[tuple[Schema, str]]:
    """Yield the sections that a key holds, each with what its path adds to that of the key."""
    if "$ref" in entry:
        yield definitions[entry["$ref"].rpartition("/")[2]], ""
    for choice in (*entry.get("anyOf", ()), *entry.get("oneOf", ())):
        yield from _objects(choice, definitions)
    if "items" in entry:
        yield from ((inner, "[]" + suffix) for inner, suffix in _objects(entry["items"], definitions))
    if isinstance(values := entry.get("additionalProperties"), dict):
        yield from ((inner, ".TASK" + suffix) for inner, suffix in _objects(values, definitions))


def _type(entry: Schema, definitions: Schema) -> str:
    """Return a key's type and bounds in words."""
    limits = [text.format(entry[name]) for name, text in LIMITS.items() if name in entry]
    if "const" in entry:
        name = f"`{entry['const']}`"
    elif "enum" in entry:
        name = ", ".join(f"`{value}`" for value in entry["enum"])
    elif "anyOf" in entry:
        name = " or ".join(_type(choice, definitions) for choice in entry["anyOf"])
    elif "oneOf" in entry:
        name = "section with a `kind`"
    elif "items" in entry:
        name = f"{'non-empty ' if 'minItems' in entry else ''}list of {_type(entry['items'], definitions)}"
    elif "additionalProperties" in entry:
        name = f"mapping to {_type(entry['additionalProperties'], definitions)}"
    else:
        name = "section" if "$ref" in entry else NAMES[entry["type"]]
    return " ".join((name, ", ".join(limits))).strip()


# The command line


def _cli_page() -> str:
    return _page(
        "Command line",
        "`bilora COMMAND --help` prints the same. All commands have the same [exit codes](../exit-codes.md).",
        *_verbs("bilora", typer.main.get_command(app)),
    )


def _verbs(path: str, command: Any) -> Iterator[str]:
    """Yield the blocks of a command, or of all commands of a group."""
    if command.hidden:
        return
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from _verbs(f"{path} {name}", below)
        return
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    usage = [path, *map(_argument, arguments), *(["[OPTIONS]"] if options else [])]
    yield f"## {path}"
    yield f"`{' '.join(usage)}`"
    yield textwrap.dedent(command.help).strip()
    if arguments or options:
        rows = [_parameter(parameter) for parameter in (*arguments, *options) if not parameter.hidden]
        yield _table(("argument or option", "type", "default", "meaning"), *rows)


def _argument(parameter: Any) -> str:
    name = parameter.name.upper() + ("..." if parameter.nargs != 1 or parameter.multiple else "")
    return name if parameter.required else f"[{name}]"


def _parameter(parameter: Any) -> tuple[str, ...]:
    names = [_argument(parameter)] if parameter.param_type_name == "argument" else parameter.opts
    names = [*names, *parameter.secondary_opts]
    value = parameter.default
    default = "" if value is None or value is False or callable(value) else f"`{value}`"
    return ", ".join(f"`{name}`" for name in names), _option_type(parameter), default, parameter.help or ""


def _option_type(parameter: Any) -> str:
    if getattr(parameter, "is_flag", False):
        return "flag"
    annotation = parameter.type_descriptor.annotation
    repeated = get_origin(annotation) is list
    annotation = get_args(annotation)[0] if repeated else annotation
    choices = [choice.value for choice in annotation] if issubclass(annotation, Enum) else []
    name = ", ".join(f"`{choice}`" for choice in choices) or TYPES[annotation]
    limits = [f"≥ {parameter.min}"] if parameter.min is not None else []
    limits += [f"≤ {parameter.max}"] if parameter.max is not None and parameter.max < 2**31 else []
    many = "; may be repeated" if repeated and parameter.param_type_name == "option" else ""
    return f"{name} {', '.join(limits)}".strip() + many


# The Python API


def _api_page() -> str:
    names = [name for name in bilora.__all__ if not name.startswith("_")]
    blocks = [block for name in names for block in _documented(name, _source(getattr(bilora, name)))]
    for path in RECORDS:
        module, _, name = path.rpartition(".")
        blocks += _documented(name, _definition(module, name))
    return _page(
        "Python API",
        f"`import bilora` offers {', '.join(f'`{name}`' for name in names)}. The other types on this page are their "
        "parameters and results; [the library](../library.md) shows them in use.",
        *blocks,
    )


def _source(member: Any) -> ast.stmt:
    return ast.parse(textwrap.dedent(inspect.getsource(member))).body[0]


def _definition(module: str, name: str) -> ast.stmt:
    """Return a class by its source, because to import some of these modules takes seconds."""
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    statements = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
    return next(node for node in statements if isinstance(node, ast.ClassDef) and node.name == name)


def _documented(name: str, node: ast.stmt) -> Iterator[str]:
    """Yield the blocks of a public class or function."""
    yield f"## {name}"
    if isinstance(node, ast.FunctionDef):
        yield from _function(name, node)
        return
    assert isinstance(node, ast.ClassDef)
    yield _docstring(node)
    if fields := [ast.unparse(field) for field in node.body if isinstance(field, ast.AnnAssign | ast.Assign)]:
        yield "\n".join(("```python", *fields, "```"))
    methods = {method.name: method for method in node.body if isinstance(method, ast.FunctionDef)}
    for method in methods.values():
        if method.name == "__init__" and "open" not in methods:
            yield from _function(name, method)
        elif not method.name.startswith("_"):
            yield f"### {name}.{method.name}"
            yield from _function(f"{name}.{method.name}", method)


def _function(name: str, node: ast.FunctionDef) -> Iterator[str]:
    """Yield the signature and the docstring of a function, a method or a property."""
    result = "" if node.name == "__init__" or node.returns is None else ast.unparse(node.returns)
    if any(ast.unparse(decorator).endswith("property") for decorator in node.decorator_list):
        yield f"```python\n{name}: {result}\n```"
    else:
        arrow = f" -> {result}" if result else ""
        one_line = f"{name}({', '.join(_parameters(node.args))}){arrow}"
        lines = [f"{name}(", *(f"    {parameter}," for parameter in _parameters(node.args)), f"){arrow}"]
        yield "\n".join(("```python", *([one_line] if len(one_line) <= 100 else lines), "```"))
    if text := _docstring(node):
        yield text


def _parameters(arguments: ast.arguments) -> list[str]:
    """Return the parameters as they are written in a signature, without the instance."""
    named = [*arguments.posonlyargs, *arguments.args]
    defaults = [*[None] * (len(named) - len(arguments.defaults)), *arguments.defaults]
    pairs: list[tuple[ast.arg, ast.expr | None]] = list(zip(named, defaults, strict=True))
    written = [_parameter_text(*pair) for pair in pairs if pair[0].arg not in ("self", "cls")]
    if arguments.kwonlyargs:
        written.append("*")
        written += map(_parameter_text, arguments.kwonlyargs, arguments.kw_defaults)
    return [*written, *([f"**{ast.unparse(arguments.kwarg)}"] if arguments.kwarg else [])]


def _parameter_text(argument: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(argument) + (f" = {ast.unparse(default)}" if default else "")


def _docstring(node: ast.FunctionDef | ast.ClassDef) -> str:
    """Return a docstring in Markdown: the entries of its sections become lists."""
    lines = []
    for line in (ast.get_docstring(node) or "").split("\n"):
        if re.fullmatch(r"(Args|Attributes|Raises|Returns|Yields|Source):.*", line):
            lines.append(f"**{line.partition(':')[0]}**{line.partition(':')[2]}\n")
        elif match := re.fullmatch(r" {4}(\w.*?): (.*)", line):
            lines.append(f"- `{match[1]}`: {match[2]}")
        else:
            lines.append(line.strip())
    return "\n".join(lines)


def main() -> None:
    """Write the pages."""
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # no arguments
    main()
