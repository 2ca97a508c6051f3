"""Find the asserts that somebody typed in a question for code."""

from __future__ import annotations

import ast
import re

from bilora.extraction.requested import requested_function
from bilora.python_code.signature import BUILTINS
from bilora.python_code.source import normalized, parse

_ASSERT = re.compile(r"\bassert\b")
_MAX_TRIED = 100
"""Occurrences of the word that are looked at; prose may be full of it."""
_MAX_LINES = 10
"""Lines over which one assert may extend."""


def typed_asserts(question: str) -> tuple[str, ...]:
    """Return the asserts in a question that are about the requested function, as Python source.

    They may follow a label or a list's mark, be quoted by backticks, and extend over several lines. An assert about
    other names, such as one within given code, is no test of the answer.
    """
    text, name = normalized(question), requested_function(question).name
    found: dict[str, None] = {}
    end = 0
    for word in list(_ASSERT.finditer(text))[:_MAX_TRIED]:
        if word.start() < end:
            continue
        source, tree = _statement(text, word.start())
        end = word.start() + len(source)
        for node in tree.body:
            names = _names(node)
            if isinstance(node, ast.Assert) and (name in names if name else names):
                found[ast.unparse(node)] = None
    return tuple(found)


def _statement(text: str, start: int) -> tuple[str, ast.Module]:
    """Return the shortest source from `start` to a line's end that is Python, with its tree; empty if none is."""
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
    """Return the names in a statement that are no builtins."""
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)} - set(BUILTINS)
