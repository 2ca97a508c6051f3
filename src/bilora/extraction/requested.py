"""Find the function that a prompt requests."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from bilora.extraction.python import parse
from bilora.python_code.signature import BUILTINS
from bilora.python_code.source import normalized

_SIGNATURE = re.compile(r"^[ \t>]*(?:Signature:[ \t]*)?`?((?:async[ \t]+)?def[ \t]+(\w+)[ \t]*\()", re.M)
_LABEL = re.compile(r"^Signature:[ \t]*", re.M)
_DEFINITION = re.compile(r"^(?:(?:async[ \t]+)?(def)|class)[ \t]+(\w+)", re.M)
_TEST = re.compile(r"^[ \t]*(?:Must pass:[ \t]*)?(assert\b.{1,500})$", re.M)
_NAMED = (
    re.compile(r"\b(?:function|method|class)\b[^.\n]{0,40}?\b(?:called|named)[ \t]+[`'\"]?([A-Za-z_]\w*)"),
    re.compile(r"\b(?:called|named)[ \t]+[`'\"]([A-Za-z_]\w*)"),
    re.compile(r"`([A-Za-z_]\w*)(?:\([^`\n]*\))?`[ \t]*(?:function\b|which\b|that\b)"),
    re.compile(r"\bfunction[ \t]+`?([A-Za-z_]\w*)\("),
    re.compile(r"\bfunction(?: name(?: is|:)?)?[ \t]+[`'\"]([A-Za-z_]\w*)[`'\"]"),
    re.compile(r"\b(?i:implement|write|define|complete)[ \t]+`?([A-Za-z_]\w*)\("),
)
_MAX_LINES = 20
_MAX_HEADER = 2_000
_MAX_PROMPT = 20_000


@dataclass(frozen=True)
class RequestedFunction:
    """The function that a prompt requests. `header` is its `def` line, if the prompt contains it."""

    name: str | None = None
    header: str | None = None


def requested_function(prompt: str) -> RequestedFunction:
    """Return the function of the labelled signature, else of the last signature, a test or the sentence."""
    text = normalized(prompt[:_MAX_PROMPT])
    if (label := _LABEL.search(text)) and (first := _DEFINITION.search(text[label.end() :])):
        labelled = text[label.end() + first.start() :]
        return RequestedFunction(first[2], _header(labelled) if first[1] else None)
    signatures = list(_SIGNATURE.finditer(text))
    if signatures:
        shallow = [signature for signature in signatures if not signature[0][0].isspace()] or signatures
        return RequestedFunction(shallow[-1][2], _header(text[shallow[-1].start(1) :]))
    for test in _TEST.finditer(text):
        if name := _first_called_name(test[1]):
            return RequestedFunction(name)
    for pattern in _NAMED:
        if match := pattern.search(text):
            return RequestedFunction(match[1])
    return RequestedFunction()


def _first_called_name(test: str) -> str | None:
    """Return the first name that a test calls and that is not a builtin."""
    calls = [node.func for node in ast.walk(parse(test) or ast.Module([], [])) if isinstance(node, ast.Call)]
    names = [func for func in calls if isinstance(func, ast.Name) and func.id not in BUILTINS]
    return min(names, key=lambda func: func.col_offset).id if names else None


def _header(text: str) -> str | None:
    lines = text[:_MAX_HEADER].partition("`")[0].split("\n", _MAX_LINES)[:_MAX_LINES]
    for count in range(1, len(lines) + 1):
        header = "\n".join(lines[:count]).rstrip(" \t").removesuffix("...").rstrip()
        header = header if header.endswith(":") else f"{header}:"
        if parse(f"{header}\n    pass"):
            return header
    return None
