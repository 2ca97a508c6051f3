"""Find out which function a prompt asks for."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from bilora.extraction.python import parse
from bilora.python_code.signature import BUILTINS
from bilora.python_code.source import plain

SIGNATURE = re.compile(r"^[ \t>]*(?:Signature:[ \t]*)?`?((?:async[ \t]+)?def[ \t]+(\w+)[ \t]*\()", re.M)
LABEL = re.compile(r"^Signature:[ \t]*", re.M)
DEFINITION = re.compile(r"^(?:(?:async[ \t]+)?(def)|class)[ \t]+(\w+)", re.M)
TEST = re.compile(r"^[ \t]*(?:Must pass:[ \t]*)?(assert\b.{1,500})$", re.M)
NAMED = (
    re.compile(r"\b(?:function|method|class)\b[^.\n]{0,40}?\b(?:called|named)[ \t]+[`'\"]?([A-Za-z_]\w*)"),
    re.compile(r"\b(?:called|named)[ \t]+[`'\"]([A-Za-z_]\w*)"),
    re.compile(r"`([A-Za-z_]\w*)(?:\([^`\n]*\))?`[ \t]*(?:function\b|which\b|that\b)"),
    re.compile(r"\bfunction[ \t]+`?([A-Za-z_]\w*)\("),
    re.compile(r"\bfunction(?: name(?: is|:)?)?[ \t]+[`'\"]([A-Za-z_]\w*)[`'\"]"),
    re.compile(r"\b(?i:implement|write|define|complete)[ \t]+`?([A-Za-z_]\w*)\("),
)
MAX_LINES = 20
MAX_HEADER = 2_000
MAX_PROMPT = 20_000


@dataclass(frozen=True)
class Asked:
    """The function that a prompt asks for. `header` is its `def` line, where the prompt shows one."""

    name: str | None = None
    header: str | None = None


def asked_function(prompt: str) -> Asked:
    """Read the asked name: of the signature that is labelled so, else of the last one, of a test or of the sentence."""
    text = plain(prompt[:MAX_PROMPT])
    if (label := LABEL.search(text)) and (first := DEFINITION.search(text[label.end() :])):
        shown = text[label.end() + first.start() :]
        return Asked(first[2], _header(shown) if first[1] else None)
    signatures = list(SIGNATURE.finditer(text))
    if signatures:
        shallow = [found for found in signatures if not found[0][0].isspace()] or signatures
        return Asked(shallow[-1][2], _header(text[shallow[-1].start(1) :]))
    for test in TEST.finditer(text):
        if name := _called(test[1]):
            return Asked(name)
    for pattern in NAMED:
        if found := pattern.search(text):
            return Asked(found[1])
    return Asked()


def _called(test: str) -> str | None:
    """Return the first name that a test calls and that is no builtin."""
    calls = [node.func for node in ast.walk(parse(test) or ast.Module([], [])) if isinstance(node, ast.Call)]
    names = [func for func in calls if isinstance(func, ast.Name) and func.id not in BUILTINS]
    return min(names, key=lambda func: func.col_offset).id if names else None


def _header(text: str) -> str | None:
    lines = text[:MAX_HEADER].partition("`")[0].split("\n", MAX_LINES)[:MAX_LINES]
    for count in range(1, len(lines) + 1):
        header = "\n".join(lines[:count]).rstrip(" \t").removesuffix("...").rstrip()
        header = header if header.endswith(":") else f"{header}:"
        if parse(f"{header}\n    pass"):
            return header
    return None
