"""Parse and format Python source: byte order mark, line ends, indentation and nesting depth."""

from __future__ import annotations

import ast
import re
import warnings

Function = ast.FunctionDef | ast.AsyncFunctionDef

MAX_TREE_DEPTH = 120
"""Levels of a syntax tree. Recursive functions (dump, unparse, visitors) need several frames per level."""
MAX_INT_BITS = 14_000
"""Longer integers cannot be printed in decimal (sys.int_info.default_max_str_digits)."""
TOO_DEEP = "nested too deeply"

BOM = "\ufeff"
INDENT = re.compile(r"[ \t\f]*")


def normalized(code: str) -> str:
    """Return code without a byte order mark and with \\n for every line end that the parser accepts."""
    return code.removeprefix(BOM).replace("\r\n", "\n").replace("\r", "\n")


def parse(code: str) -> ast.Module | None:
    """Return the syntax tree of Python code; None if it is invalid or nested too deeply to be walked."""
    tree = _read(code)
    return tree if isinstance(tree, ast.Module) else None


def parse_error(code: str) -> str:
    """Return why `parse` returns None, or "" if it does not."""
    reason = _read(code)
    return reason if isinstance(reason, str) else ""


def tidy(code: str) -> str:
    """Return code with \\n, spaces for tabs, no form feeds and no trailing blanks, if that keeps its meaning."""
    text = normalized(code).strip("\n").rstrip()
    clean = "\n".join(map(_clean, text.split("\n")))
    if clean == text:
        return text
    before, after = parse(text), parse(clean)
    return clean if before and after and ast.dump(before) == ast.dump(after) else text


def _clean(line: str) -> str:
    indent = INDENT.match(line)
    text = line[indent.end() :] if indent else line
    # A form feed restarts the count of columns, so blanks before it do not indent.
    blanks = line[: len(line) - len(text)].rpartition("\f")[2]
    return (blanks.expandtabs(4) + text).rstrip()


def _read(code: str) -> ast.Module | str:
    """Return the tree, or why there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in data are not worth a warning
            tree = ast.parse(code.removeprefix(BOM))
    except SyntaxError as error:
        location = f"line {error.lineno}: " if error.lineno else ""
        return TOO_DEEP if error.msg.startswith("too many") else f"{location}{error.msg}"
    except (RecursionError, MemoryError, OverflowError):
        return TOO_DEEP
    except ValueError as error:  # a NUL or a lone surrogate
        return str(error)
    level: list[ast.AST] = [tree]
    for _ in range(MAX_TREE_DEPTH):
        if any(_is_too_long(node) for node in level):
            return "an integer too long to be written in decimal"
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return tree
    return TOO_DEEP


def _is_too_long(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int) and node.value.bit_length() > MAX_INT_BITS
