"""Find the asserts in a question for code."""

from __future__ import annotations

import ast
import re

from bilora.extraction.requested import requested_function
from bilora.python_code.signature import BUILTINS
from bilora.python_code.source import normalized, parse

_ASSERT = re.compile(r"\bassert\b")
_MAX_WORDS = 100
"""The maximum of occurrences of the word "assert" that are parsed."""
_MAX_LINES = 10
"""The maximum of lines of one assert."""


def typed_asserts(question: str) -> tuple[str, ...]:
    """Return the asserts in a question that test the requested function, as Python source.

    They may follow a label or a list marker, be in backticks, and span several lines. An assert that does not use the
    requested function, such as one in code that the question quotes, is ignored.
    """
    text, name = normalized(question), requested_function(question).name
    asserts: dict[str, None] = {}
    end = 0
    for word in list(_ASSERT.finditer(text))[:_MAX_WORDS]:
        if word.start() < end:
            continue
        source, tree = _statement(text, word.start())
        end = word.start() + len(source)
        for node in tree.body:
            names = _names(node)
            if isinstance(node, ast.Assert) and (name in names if name else names):
                asserts[ast.unparse(node)] = None
    return tuple(asserts)


def _statement(text: str, start: int) -> tuple[str, ast.Module]:
    """Return the shortest Python source from `start` to a line end, with its tree; empty if there is none."""
    lines = text[start:].split("\n", _MAX_LINES)[:_MAX_LINES]
    if text[:start].endswith("`"):
        lines = [lines[0].partition("`")[0]]
    for count in range(1, len(lines) + 1):
        source = "\n".join(lines[:count])
        for candidate in (source, source.rstrip("` \t.,;")):
            if tree := parse(candidate):
                return candidate, tree
    return "", ast.Module([], [])


def _names(node: ast.stmt) -> set[str]:
    """Return the names in a statement, without builtins."""
    return {child.id for child in ast.walk(node) if isinstance(child, ast.Name)} - set(BUILTINS)
