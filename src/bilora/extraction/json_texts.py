"""Find the strings in a reply that is JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

START = re.compile(r"^[ \t]*(?=[{\[])", re.M)
REASONING = re.compile(r"reason|thought|think|explanation|rationale|analysis|draft", re.I)
MAX_STARTS = 20


def json_texts(text: str) -> list[tuple[str, str]]:
    """Return the strings of the first JSON object or list of objects, each with its key, except reasoning.

    A list of strings is joined to one.
    """
    decoder = json.JSONDecoder(strict=False)
    for _, start in zip(range(MAX_STARTS), START.finditer(text), strict=False):
        try:
            value, _ = decoder.raw_decode(text, start.end())
        except (ValueError, RecursionError):
            continue
        if texts := list(_texts("", value)):
            return texts
    return []


def _texts(key: str, value: object) -> Iterator[tuple[str, str]]:
    if REASONING.search(key):
        return
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(name, inner)
    elif isinstance(value, list):
        lines = [line for line in value if isinstance(line, str)]
        if lines and len(lines) == len(value) and key:
            yield key, "".join(lines) if lines[0].endswith("\n") else "\n".join(lines)
        else:
            for inner in value:
                yield from _texts(key, inner)
    elif isinstance(value, str) and key:
        yield key, value
