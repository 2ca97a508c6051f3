"""Parse a file of tests into statements, one test each."""

from __future__ import annotations

import ast
from pathlib import Path

from bilora.errors import BadData
from bilora.sandbox.assertions import silent_test


def parse_tests(source: str, location: Path | str) -> tuple[str, ...]:
    """Return the statements of test source code, one test each.

    Raises:
        BadData: the source is not Python, or a test asserts nothing; the message names `location` and the line.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", error)
        raise BadData(location, f"is not Python ({reason}).", getattr(error, "lineno", None)) from None
    lines = {ast.unparse(statement): statement.lineno for statement in tree.body}
    silent = silent_test(tuple(lines))
    if silent is not None or not lines:
        quoted = f"`{' '.join(silent.split())[:80]}` " if silent else "the file "
        raise BadData(location, f"{quoted}asserts nothing; write `assert NAME(…) == …`.", lines.get(silent or ""))
    return tuple(ast.unparse(statement) for statement in tree.body)
