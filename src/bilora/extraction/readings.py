"""Interpret a piece of a reply as Python, the most literal interpretation first."""

from __future__ import annotations

import ast
import bisect
import html
import itertools
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from bilora.extraction import statements
from bilora.extraction.json_texts import json_texts
from bilora.extraction.python import LITERAL, bindings, has_stray_marks, outside_literals, parse
from bilora.extraction.reply import PYTHON, SPECIAL, Block, split_blocks
from bilora.python_code.docstrings import ASCII_PUNCTUATION

_CONTAINER = re.compile(
    r"</?(?:pre|code|python|python_code|answer|solution|final_answer|final|response|result|output|file|function|script"
    r"|tool_call|artifact)\b[^<>\n]{0,80}>"
    r"|(?:(?<![\w\])])\[|\[/)(?:PYTHON|CODE|BEGIN|DONE|END|ANSWER|ANS|SOLUTION|SOL|RESULT)\]"
    r"|\\(?:begin|end)\{(?:lstlisting|verbatim|minted|code|python)\}(?:\[[^\]\n]{0,80}\]|\{\w{0,20}\})*"
    r"|<\|(?:begin|end)_of_solution\|>",
    re.I,
)
_INLINE_CODE = re.compile(r"(?<!`)(`{1,3})(?!`)([^`\n]+)\1(?!`)")
_TAIL = re.compile(rf"(?<![ \t])[ \t]*(?:`{{3,}}|~{{3,}}|{SPECIAL}|{_CONTAINER.pattern})[ \t]*$", re.M | re.I)
_PROMPT = re.compile(r"[ \t]*(?:>>>|\.\.\.)(?: |$)")
_IPYTHON = re.compile(r"[ \t]*(?:In \[[\d ]*\]:|\.\.\.:)(?: |$)")
_NUMBERED = re.compile(r"[ \t]*L?\d{1,5}(?:[ \t]*[|:.)]|(?=[ \t]))(?: |$)?")
_QUOTATION = re.compile(r"(?:^[ \t]*>(?!>).*\n?)+", re.M)
_FILE_NAME = re.compile(r"[\w./\\-]{1,200}\.py:?")
_HTML_TAG = re.compile(r"</?(?:span|div|p|b|i|em|strong|font|a|html|body|pre|code)\b[^<>\n]{0,200}>", re.I)
_TYPOGRAPHY = {**ASCII_PUNCTUATION, **{wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)}}
"""Typographic punctuation, and full-width characters of East Asian keyboards."""
_CODE_KEYS = ("code", "solution", "answer", "program", "python", "function", "content", "completion", "response")
BINDING = re.compile(r"=|\b(?:def|class|import|for|as)\b")
_MAX_INLINE = 50
MAX_REPAIRED = 20_000
"""A longer text is not repaired, which bounds the time."""


@dataclass(frozen=True)
class ParsedCode:
    """Code of a block that parses. A lower `rank` is more likely the answer."""

    code: str
    tree: ast.Module
    rank: int = 0


def trimmed(code: str) -> str:
    """Return code without surrounding blank lines and trailing whitespace."""
    return code.strip("\n").rstrip()


def read_program(text: str, rank: int = 0) -> ParsedCode | None:
    """Return the first interpretation of a text that parses and binds a name."""
    for number, (code, cost) in enumerate(_readings(text)):
        tree = parse(code)
        if tree and not has_stray_marks(tree):
            if bindings(tree.body):
                return ParsedCode(code, tree, rank + cost)
            if number == 0 and not code.startswith(("{", "[", '"', "'")):
                return None
    return None


def pieces(block: Block) -> list[tuple[str, int]]:
    """Return a block's texts with their ranks: inline code and quotations, the whole text, and tagged parts."""
    if block.language is not None:
        return [(block.text, 0 if block.is_python else 1)]
    inline = [code[2] for code in itertools.islice(_INLINE_CODE.finditer(block.text), _MAX_INLINE) if "def " in code[2]]
    code = [re.sub(rf"^\s*(?:{PYTHON.pattern})\s+", "", each, flags=re.I) for each in inline]
    marked = _CONTAINER.split(block.text)
    parts = [block.text, *(marked if len(marked) > 1 else ())]
    quoted = [*code, *_QUOTATION.findall(block.text)]
    return [*((piece, 1) for piece in quoted), *((piece, 0) for piece in parts if piece.strip())]


def _readings(text: str) -> Iterator[tuple[str, int]]:
    """Yield interpretations of a text, the most literal first, each with the cost that is added to its rank."""
    code = trimmed(text)
    first, _, following = code.partition("\n")
    if following and (PYTHON.fullmatch(first.strip()) or _FILE_NAME.fullmatch(first.strip())):
        code = trimmed(following)
    yield code, 0
    if len(code) > MAX_REPAIRED:
        yield statements.select(code), 0
        return
    for change in (without_tail, _dedented, _ascii_code):
        changed = change(code)
        if changed != code:
            code = changed
            yield code, 0
    for convert in (_from_json, _from_string, _without_prompts, _without_numbers, _from_html):
        if (read := convert(code)) is not None:
            cost = 1 if convert is _from_json else 0
            yield from ((reading, cost) for reading in (read, _dedented(read), statements.select(read)))
    if (additions := _diff_additions(code)) is not None:
        yield _dedented(additions), 2
    yield statements.select(code), 0


def without_tail(code: str) -> str:
    """Return code cut at a closing mark at the end of a line of code."""
    literals = [literal.span() for literal in LITERAL.finditer(code)]
    for mark in _TAIL.finditer(code):
        index = bisect.bisect(literals, (mark.start(), len(code))) - 1
        if index < 0 or literals[index][1] <= mark.start() or mark.end() == len(code):
            return trimmed(code[: mark.start()])
    return code


def _dedented(code: str) -> str:
    lines = code.split("\n")
    if all(line.lstrip(" \t").startswith(">") and not _PROMPT.match(line) for line in lines if line.strip()):
        code = "\n".join(re.sub(r"^[ \t]*(?:>(?!>) ?)+", "", line) for line in lines)
    return textwrap.dedent(code)


def _ascii_code(code: str) -> str:
    """Replace typographic spaces and quotes by ASCII ones, except in strings and comments."""
    blank = "\n".join(_ascii_indent(line) for line in code.split("\n"))
    return outside_literals(lambda part: part.translate(_TYPOGRAPHY), blank)


def _ascii_indent(line: str) -> str:
    text = line.lstrip()
    return line[: len(line) - len(text)].translate(_TYPOGRAPHY) + text


def _from_json(code: str) -> str | None:
    texts = [(key, text) for key, text in json_texts(code) if key in _CODE_KEYS or "def " in text]
    texts.sort(key=lambda item: _CODE_KEYS.index(item[0]) if item[0] in _CODE_KEYS else len(_CODE_KEYS))
    if not texts:
        return None
    blocks = [block.text for block in split_blocks(texts[0][1]) if block.language is not None]
    return trimmed(blocks[-1] if blocks else texts[0][1])


def _from_string(code: str) -> str | None:
    """Return a program that is written as one string literal, or on one line with escaped line ends."""
    if code[:1] in ("'", '"'):
        try:
            value = ast.literal_eval(code)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
        return trimmed(value) if isinstance(value, str) else None
    if "\\n" not in code or "\n" in code:
        return None
    return code.replace("\\n", "\n").replace("\\t", "\t").replace('\\"', '"')


def _without_prompts(code: str) -> str | None:
    return _after_prompts(_PROMPT, code) or _after_prompts(_IPYTHON, code)


def _after_prompts(prompt: re.Pattern[str], code: str) -> str | None:
    """Return the input after an interpreter's prompts, without the output; None without prompts."""
    typed = [line[match.end() :] for line in code.split("\n") if (match := prompt.match(line))]
    return "\n".join(typed) if typed else None


def _without_numbers(code: str) -> str | None:
    lines = [line for line in code.split("\n") if line.strip()]
    if len(lines) < 2 or not all(map(_NUMBERED.match, lines)):
        return None
    return textwrap.dedent("\n".join(_NUMBERED.sub("", line, count=1) for line in lines))


def _from_html(code: str) -> str | None:
    if not re.search(r"&(?:lt|gt|amp|quot|#\d+|#x[0-9a-f]+|nbsp);|<br ?/?>|</?(?:span|div|p)\b", code, re.I):
        return None
    return trimmed(html.unescape(_HTML_TAG.sub("", re.sub(r"<br ?/?>\n?", "\n", code, flags=re.I))))


def _diff_additions(code: str) -> str | None:
    """Return the new side of a diff, or None if the code is not a diff."""
    lines = [line for line in code.split("\n") if not re.match(r"(?:\+\+\+ |--- |@@|diff --git |index [0-9a-f])", line)]
    if not any(line.startswith("+") for line in lines):
        return None
    return "\n".join(line[1:] for line in lines if line[:1] in ("+", " "))
