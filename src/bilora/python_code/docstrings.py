"""Docstrings as text: their summary, the parameters that they describe, and ASCII punctuation."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

# Section headings of sphinx.ext.napoleon (Google and NumPy style) and numpydoc, then others in common use.
_NAPOLEON = (
    "args|arguments|attention|attributes|caution|danger|error|examples?|hint|important|keyword args|"
    "keyword arguments|methods|notes?|other parameters|parameters|receives?|returns?|raises?|references|"
    "see also|tip|todo|warnings?|warns?|yields?"
)
_NUMPYDOC = "signature|summary|extended summary|index"
_OTHERS = (
    "params?|kwargs|keywords|options|inputs?|outputs?|results?|exceptions?|throws|errors|usages?|usage examples?|"
    "example usages?|side effects?|requires|requirements|preconditions?|postconditions?|defaults?|details|"
    "authors?|since|versions?|changelog|deprecated|copyright|licen[cs]e|sources?|tips|hints|todos|fields|properties|"
    "class attributes|instance attributes|class variables|description|limitations|caveats|remarks?|synopsis"
)
_SECTIONS = f"(?:{_NAPOLEON}|{_NUMPYDOC}|{_OTHERS})"
_ANY_CASE = "(?:args|arguments|parameters|params|returns?|yields?|raises|examples?|notes?)"
"""Headings that need neither colon nor capital; the others could be the last word of a wrapped line."""

_ALONE = re.compile(rf"\s*{_SECTIONS}\s*::?\s*$", re.I)
"""A heading alone on its line, with one colon or, as reStructuredText has before a literal block, two."""
_BARE = re.compile(rf"\s*(?:(?i:{_ANY_CASE})|(?=[A-Z])(?i:{_SECTIONS}))\s*$")
_INLINE = re.compile(rf"\s*(?=[A-Z])(?i:{_SECTIONS})\s*:\s")
"""A heading followed by text on the same line. In lower case, such a line is wrapped prose."""
_UNDERLINED = re.compile(rf"\s*{_SECTIONS}\s*$", re.I)
_MARKED = re.compile(r"\s*(?::\w[^:`]*:(?:\s|$)|@\w+|>>>)")
"""A field (Sphinx, epytext) or a doctest; a role such as :class:`Name` is prose."""
_DIRECTIVE = re.compile(r"\s*\.\.\s+\w")
_RULE = re.compile(r"\s*([-=~^*#\"'+])\1{2,}\s*$")
_PARAMETERS = re.compile(r"\s*(args|arguments|parameters|params)\s*:?\s*", re.I)
_PARAMETER = re.compile(r"(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?:\([^)]*\))?\s*(?::|$)")
_SPHINX_NAME = re.compile(r"^\s*:param\s+(?:[\w.\[\]]+\s+)?(\w+)\s*:", re.M)

_SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_INVISIBLE = "\u00ad\u200b\u200c\u200d\u2060\ufeff"
ASCII_PUNCTUATION = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        **dict.fromkeys(_SPACES, " "),
        **dict.fromkeys(_INVISIBLE),
        **{"\u2026": "...", "\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl"},
    }
)


def ascii_punctuation(text: str) -> str:
    """Replace typographic quotes, dashes, ellipses, spaces and ligatures by ASCII; keep accents and symbols."""
    return text.translate(ASCII_PUNCTUATION)


def summary_text(docstring: str) -> str:
    """Return the lines before the first section, field or doctest, without an underlined title."""
    lines = re.split(r"\r\n|\r|\n", inspect.cleandoc(docstring))
    if len(lines) > 1 and _RULE.match(lines[1]) and lines[0].strip() and not _is_section(lines[0], ""):
        lines = lines[2:]
        while lines and not lines[0].strip():
            lines = lines[1:]
    summary: list[str] = []
    for line, next_line in zip(lines, [*lines[1:], ""], strict=True):
        if _ends_summary(line, next_line, first=not summary):
            break
        summary.append(line)
    return "\n".join(summary)


def _ends_summary(line: str, next_line: str, *, first: bool) -> bool:
    if _MARKED.match(line) or _INLINE.match(line) or _is_section(line, next_line):
        return True
    if first:
        return False
    return bool(_DIRECTIVE.match(line) or _RULE.match(line) or _RULE.match(next_line))  # the last: any heading


def _is_section(line: str, next_line: str) -> bool:
    return bool(_ALONE.match(line) or _BARE.match(line) or (_UNDERLINED.match(line) and _RULE.match(next_line)))


def documented_parameters(docstring: str) -> list[str]:
    """Return the parameter names that a Google, NumPy or Sphinx section describes."""
    text = inspect.cleandoc(docstring)
    lines = text.splitlines()
    names: list[str] = _SPHINX_NAME.findall(text)
    for index, line in enumerate(lines):
        if _PARAMETERS.fullmatch(line):
            names += _section(lines[index + 1 :])
    return names


def _section(lines: list[str]) -> Iterator[str]:
    underlined = bool(lines) and _is_rule(lines[0])
    body = lines[1:] if underlined else lines
    level: int | None = None
    for line, next_line in zip(body, [*body[1:], ""], strict=False):
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            continue
        level = indent if level is None else level
        if indent < level or _is_rule(next_line) or (level == 0 and not underlined):
            return
        entry = _PARAMETER.match(line.strip()) if indent == level else None
        if entry:
            yield from (name.strip(" *") for name in entry[1].split(","))


def _is_rule(line: str) -> bool:
    return len(line.strip()) > 2 and set(line.strip()) <= {"-", "="}
