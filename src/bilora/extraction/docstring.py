"""Extract a docstring's sentence from a model's reply. A reply that is only a sentence is unchanged."""

from __future__ import annotations

import ast
import re

from bilora.extraction.json_texts import json_texts
from bilora.extraction.python import Function, parse
from bilora.extraction.readings import read_program
from bilora.extraction.reply import Block, clean, split_blocks

_QUOTED_ENDS = re.compile(r"""^[rRuU]?(\"{3}|'{3})|(\"{3}|'{3})$""")
_TRIPLE = re.compile(
    r"""^[ \t]*(?:\w+[ \t]*=[ \t]*)?[rRuU]?(?P<quotes>"{3}|'{3})(?P<text>(?:(?!(?P=quotes)).)*)""", re.M | re.S
)
_ELEMENT = re.compile(r"<(\w+)\b[^<>]{0,80}>([^<>]+)</\1>")
_TAGGED = re.compile(r"<(answer|final_answer|docstring|summary)\b[^<>\n]{0,80}>((?:(?!</\1).)*)", re.I | re.S)

_KIND = (
    "docstring|doc ?string|docs|tl;?dr|summary|description|explanation|answer|documentation|sentence|comment"
    "|output|response"
)
_POLITE = r"(?:(?:sure|certainly|of course|okay|ok|absolutely|great|yes)\b[ ,!.:\u2013\u2014-]*)"
_ARTICLES = (
    r"(?:(?:the|a|an|my|one|short|brief|final|concise|possible|suggested|generated|revised"
    r"|updated|improved|corrected|better|python|function|one-sentence"
    r"|single-sentence)[ -]+){0,4}"
)
_KINDS = rf"(?:{_ARTICLES}(?:{_KIND})s?\b(?:[ ]+(?:is|of|for|that|would)\b[^:\n]{{0,80}})?)"
_HERE = r"(?:(?:here|below|following)\b(?:'s|\u2019s| is| are)?|this is)"
_LABEL = re.compile(
    rf"[*_#>]{{0,3}}[ ]?{_POLITE}?(?:{_HERE}[^:\n]{{0,60}}\b(?:{_KIND})s?\b[^:\n]{{0,60}}|{_KINDS}|in one sentence)"
    r"[*_]{0,2}:[*_]{0,2}\s+(?=\S)",
    re.I,
)
"""Words before the sentence on the same line, as in `Summary: Add up all numbers.`"""
_INTERJECTION = re.compile(r"(?i:sure|certainly|of course|absolutely|okay)[!,][ ]+(?=[A-Z])")
_LEAD_IN = re.compile(
    rf"[*_#>]{{0,6}}[ ]?(?:{_POLITE}?(?:{_HERE}[^:\n]{{0,100}}|{_KINDS})[*_]{{0,2}}:[*_]{{0,2}}"
    rf"|{_HERE}[^:.\n]{{0,60}}\b(?:{_KIND})\b[^:.\n]{{0,60}}[.!]|(?:{_KIND})s?[*_]{{0,2}}"
    r"|(?:sure|certainly|of course|okay|ok|absolutely|great)\b[^:\n]{0,100}[!.:])\s*",
    re.I,
)
"""A line or paragraph that only introduces the next one."""
_SECTION = re.compile(
    r"\s*(?::(?:param|parameter|arg|argument|key|keyword|type|returns?|rtype|raises?|except|exception|yields?|[iv]?var)\b"
    r"[^:\n]{0,80}:|@(?:param|return|returns|raises|throws|type|rtype)\b|>>>|```|~~~"
    r"|(?:args?|arguments|keyword arg(?:ument)?s|other parameters|param(?:eter)?s|attributes|methods|returns?|yields?"
    r"|receives|raises|warns|examples?|notes?|references|see also|todo|warnings?|usage)[ \t]*(?::|$))",
    re.I,
)
_JSON_KEYS = ("docstring", "summary", "answer", "description", "sentence", "text", "content", "response")
_PAIRS = (
    ('"', '"'),
    ("'", "'"),
    ("`", "`"),
    ("\u201c", "\u201d"),
    ("\u2018", "\u2019"),
    ("\u201e", "\u201c"),
    ("\u00ab", "\u00bb"),
    ('"""', '"""'),
    ("'''", "'''"),
    ("```", "```"),
    ("***", "***"),
    ("**", "**"),
    ("__", "__"),
    ("*", "*"),
    ("_", "_"),
)
_MARK = re.compile(r"(?:([-*+\u2022\u2013])\s+(?![a-z]|.*\s\1\s)|(?:\d{1,2}[.)]|#{1,6}|>)\s+)(?=\S)")
"""The mark of a list, comment or quotation before the sentence."""


def first_paragraph(text: str) -> str:
    """Return the text before the first blank line, joined to one line, without surrounding quotes."""
    unquoted = _QUOTED_ENDS.sub("", text.strip()).strip()
    line = " ".join(re.split(r"\n\s*\n", unquoted, maxsplit=1)[0].split())
    quote = line[:1]
    if quote in ('"', "'", "`") and len(line) > 1 and line.endswith(quote) and quote not in line[1:-1]:
        return line[1:-1].strip()
    return line


def extract_sentence(text: str, name: str | None = None) -> str:
    """Return the docstring sentence of a reply: its first paragraph, before any section.

    Args:
        text: raw reply of the model: a sentence, a docstring, or a function with a docstring.
        name: function of the prompt, for a reply with several functions.
    """
    try:
        return _unwrap(_docstring_text(clean(text).strip(), name))
    except (RecursionError, MemoryError):  # nested too deeply for the interpreter
        return first_paragraph(text)


def _docstring_text(answer: str, name: str | None) -> str:
    """Return the part of an answer that contains the sentence."""
    if tagged := _TAGGED.match(answer):
        answer = tagged[2].strip()
    blocks = split_blocks(answer)
    fenced = [block for block in blocks if block.language is not None and block.text.strip()]
    docstrings = [docstring for block in fenced or blocks if (docstring := _docstring(block, name))]
    if docstrings:
        return max(reversed(docstrings), key=lambda docstring: docstring[0])[1]
    if value := _from_json(fenced[-1].text if fenced else _without_lead_in(answer)):
        return value
    for block in blocks:  # the first text that is neither a lead-in nor code
        text = _without_lead_in(block.text)
        if text and (block.language is None or (block.is_text and parse(text) is None)):
            return text
    return _without_lead_in((fenced or blocks)[0].text) if blocks else ""


def _from_json(answer: str) -> str | None:
    if answer.lstrip()[:1] not in ("{", "["):
        return None
    texts = [text for json_key in _JSON_KEYS for key, text in json_texts(answer) if json_key in key.lower()]
    return _without_lead_in(texts[0]) if texts else None


def _docstring(block: Block, name: str | None) -> tuple[bool, str] | None:
    """Return a block's docstring or triple-quoted string, and whether it is that of the named function."""
    if re.search(r"\b(?:def|class)\s", block.text) and (program := read_program(block.text)):
        nodes = [node for node in ast.walk(program.tree) if isinstance(node, Function | ast.ClassDef)]
        nodes.sort(key=lambda node: (node.name == name, node.lineno))
        docstrings = [(node.name == name, docstring) for node in nodes if (docstring := ast.get_docstring(node))]
        return docstrings[-1] if docstrings else None
    string = _TRIPLE.search(block.text)
    return (False, text) if string and (text := string["text"].strip()) else None


def _without_lead_in(text: str) -> str:
    paragraphs = [paragraph for paragraph in re.split(r"\n[ \t]*\n", text.strip()) if paragraph.strip()]
    while paragraphs and _LEAD_IN.fullmatch(paragraphs[0]) and (len(paragraphs) > 1 or paragraphs[0][-1:] in ":*_"):
        del paragraphs[0]
    if not paragraphs:
        return ""
    first, _, following = paragraphs[0].partition("\n")
    return following if following.strip() and _LEAD_IN.fullmatch(first) else paragraphs[0]


def _unwrap(text: str) -> str:
    first, *others = text.strip().split("\n")
    for index, line in enumerate(others):
        if _SECTION.match(line):
            del others[index:]
            break
    if first.startswith(("#", ">")):
        others = [re.sub(rf"^{first[0]}+[ \t]*", "", line) for line in others]
    sentence = first_paragraph("\n".join((first, *others)))
    for _ in range(len(_PAIRS)):
        inner = re.sub(r"<br ?/?>$", "", sentence).strip()
        if element := _ELEMENT.fullmatch(inner):
            inner = element[2].strip()
        for prefix in (_MARK, _LABEL, _INTERJECTION):
            if match := prefix.match(inner):
                inner = inner[match.end() :]
        for opening, closing in _PAIRS:
            body = inner[len(opening) : len(inner) - len(closing)]
            if (
                inner.startswith(opening)
                and inner.endswith(closing)
                and body.strip()
                and not {opening, closing} & {body[:1], body[-1:]}
                and opening not in body
                and closing not in body
            ):
                inner = body.strip()
                break
        if inner == sentence:
            return sentence
        sentence = inner
    return sentence
