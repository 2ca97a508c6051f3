"""Extract the Python statements from a text that also contains prose."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from bilora.extraction.python import LITERAL, parse

_DEFINITION = r"(?:async[ \t]+)?def[ \t]+\w|class[ \t]+\w+[ \t]*[:(]|import[ \t]+\w|from[ \t]+[\w.]+[ \t]+import\b|@\w"
_COMPOUND = "else|try|finally|except|if|elif|for|while|with|class|match|case"
_LABEL = re.compile(
    rf"^([ \t]*)(?:(?!(?:{_COMPOUND})\b)[*_#\d.)>-]{{0,4}}[ \t]?[A-Za-z][\w' ,!]{{0,80}}[:.!][*_]{{0,2}}[ \t]+"
    rf"|(?:[-*+\u2022]|\d{{1,2}}[.)])[ \t]+)(?=(?:{_DEFINITION}))",
    re.M,
)
"""A lead-in on the same line as code, as in `Answer: def f(x):`, or a list's mark."""
_STARTED = re.compile(
    rf"(?:{_DEFINITION}|(?:if|for|while|with|assert|del|global|return|raise|try)\b|async[ \t]+(?:for|with)\b"
    r"|[A-Za-z_][\w.]*(?:\[[^\]\n]{0,80}\])?[ \t]*(?::[^=\n]{1,80})?[-+*/|&^%@]{0,2}=(?!=)"
    r"|[A-Za-z_]\w*(?:[ \t]*,[ \t]*[A-Za-z_]\w*)+[ \t]*=(?!=)|[A-Za-z_][\w.]*\()"
)
_CONTINUED = re.compile(r"(?:else|elif|except|finally)\b|[)\]}]")
_PROSE = re.compile(r"[A-Za-z']+,? [a-z']+,? [a-z']+")
_DEFINED = re.compile(r"(?:async[ \t]+)?def[ \t]+\w+[ \t]*\(|class[ \t]+\w+[ \t]*[:(]|@\w")
_OPENING = re.compile(r"[(\[{\"']|\\$")
_TOKEN = re.compile(rf"{LITERAL.pattern}|\\\n|[(\[{{\n)\]}}]", re.DOTALL)
_MAX_STATEMENTS = 2_000
_MAX_SCANNED = 200_000


@dataclass(frozen=True)
class _Chunk:
    """One statement, with the blank lines after it, or one line of prose."""

    lines: tuple[str, ...]
    is_code: bool

    @property
    def text(self) -> str:
        """The lines without their common indentation."""
        return textwrap.dedent("\n".join(self.lines))


def select(text: str) -> str:
    """Return the statements of a text without its prose.

    A definition that does not parse is included, so that a broken program remains broken.
    """
    chunks = list(_chunks(_LABEL.sub(r"\1", text).split("\n")))
    selected: list[str] = []
    comments: list[str] = []
    for number, chunk in enumerate(chunks):
        if number >= _MAX_STATEMENTS:
            break
        if chunk.is_code and _is_statement(chunk):
            selected += [*comments, chunk.text]
            comments = []
        elif chunk.lines[0].lstrip().startswith("#") and chunk.lines[-1].strip():
            comments.append(chunk.text)
        else:
            comments = []
    return "\n".join(selected).strip("\n").rstrip()


def _chunks(lines: list[str]) -> Iterator[_Chunk]:
    budget = _MAX_SCANNED
    start = 0
    while start < len(lines):
        line = lines[start]
        body = line.lstrip(" \t")
        if not _STARTED.match(body):
            yield _Chunk((line,), is_code=False)
            start += 1
            continue
        margin = len(line) - len(body)
        end, decorated = start + 1, body.startswith("@")
        closing_line, scanned = _end_of_brackets(lines, start, budget)
        budget -= scanned
        end = max(end, closing_line)
        while end < len(lines):
            text = lines[end].lstrip(" \t")
            indent = len(lines[end]) - len(text)
            if text and indent <= margin and not (indent == margin and (decorated or _CONTINUED.match(text))):
                break
            if decorated and text and indent == margin:
                decorated = text.startswith("@")
            if text:
                closing_line, scanned = _end_of_brackets(lines, end, budget)
                budget -= scanned
                end = max(end, closing_line - 1)
            end += 1
        while not lines[end - 1].strip():
            end -= 1
        following = end
        while following < len(lines) and not lines[following].strip():
            following += 1
        yield _Chunk(tuple(lines[start : following if following < len(lines) else end]), is_code=True)
        start = following


def _end_of_brackets(lines: list[str], start: int, budget: int) -> tuple[int, int]:
    """Return the line after the one that closes the brackets and strings opened at `start`, and the scanned length.

    If they are never closed, it is the line after `start`.
    """
    if not _OPENING.search(lines[start]):
        return start + 1, 0
    scanned, window = 0, 1
    while scanned <= budget:
        text = "\n".join(lines[start : start + window])
        scanned += len(text)
        depth, line = 0, start
        for token in _TOKEN.finditer(text):
            if token[0] == "\n":
                line += 1
                if depth <= 0:
                    return line, scanned
            elif token[0] in "([{":
                depth += 1
            elif token[0] in ")]}":
                depth -= 1
            else:
                line += token[0].count("\n")
                if token.end() == len(text) and _is_open(token[0]):
                    depth += 1
        if depth <= 0 and not text.endswith("\\"):
            return min(start + window, len(lines)), scanned
        if start + window >= len(lines):
            break
        window *= 4
    return start + 1, scanned


def _is_open(token: str) -> bool:
    quotes = token[:3]
    return quotes in ('"""', "'''") and (len(token) < 6 or not token.endswith(quotes))


def _is_statement(chunk: _Chunk) -> bool:
    """Return whether a chunk is a statement, possibly broken, and not a sentence that begins like one."""
    tree = parse(chunk.text)
    if tree is None:
        return bool(_DEFINED.match(chunk.text)) or not _PROSE.search(chunk.lines[0])
    return any(not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call | ast.Await) for node in tree.body)
