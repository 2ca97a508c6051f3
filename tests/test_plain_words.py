"""Code and documentation use the field's words: no file contains a banned word, and no name is a banned identifier."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pytest
from support.checkouts import ROOT

COUNTED = "adapter|answer|core|line|message|program|request|row|sample|thread|time|token|worker|zygote"
UNIT = (
    "adapter|answer|core|day|file|layer|line|minute|page|pass|process|row|sample|second(?! time)|stage|step|task|token|"
    "worker"
)
BANNED_WORDS = {
    "told": "reports, says",
    "stands": "is",
    "lies": "is in",
    "asked": "requested, sent",
    "carries": "contains",
    "(?<!at )(?-i:[Rr]est)": "remaining, others",
    "apart": "separately",
    "anew": "again",
    "so many": "the number",
    "houses?": "package",
    "rooms?": "package, module",
    "doors?": "entry point",
    r"floors?(?!\()": "lower bound, trivial baseline",
    f"(?:{COUNTED})s? a (?:{UNIT})": "per",
}
"""Regular expressions, each with plainer words."""

BANNED_IDENTIFIERS = {
    "found", "made", "told", "kept", "shown", "one", "own", "plain", "few", "rest", "apart", "asked",
}  # fmt: skip

ALLOWED_WORDS: dict[tuple[str, str], str] = {
    ("src/bilora/metrics/judged.py", "stands"): "a text for the judge model",
    ("src/bilora/evaluation/run.py", "floor"): "the prefix of trivial answers in stored results",
}
ALLOWED_IDENTIFIERS: dict[tuple[str, str], str] = {
    ("src/bilora/data_reports.py", "kept"): "a field of the stored split report",
}
"""By file and word: the reason why it may occur there."""


def banned_words(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line number of every banned word in a text, and the word."""
    for pattern in BANNED_WORDS:
        for match in re.finditer(rf"\b(?:{pattern})\b", text, re.IGNORECASE):
            yield text.count("\n", 0, match.start()) + 1, match[0]


def banned_identifiers(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line number of every banned identifier in a module, and the identifier."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                pass
            case ast.arg(arg=name) | ast.Attribute(attr=name) | ast.Name(id=name, ctx=ast.Store()):
                pass
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                pass
            case _:
                continue
        if name.strip("_") in BANNED_IDENTIFIERS:
            yield node.lineno, name


def matches_in(
    check: Callable[[str], Iterator[tuple[int, str]]], paths: Iterable[Path]
) -> Iterator[tuple[str, int, str]]:
    """Yield file, line number and word of every match of a check."""
    for path in sorted(paths):
        for line, word in check(path.read_text(encoding="utf-8")):
            yield path.relative_to(ROOT).as_posix(), line, word


def assert_allowed(
    matches: Iterable[tuple[str, int, str]], allowed: Mapping[tuple[str, str], str], advice: str
) -> None:
    """Fail for every fault without an exception, and for every exception without a fault."""
    unused, refused = set(allowed), []
    for file, line, word in matches:
        if (file, word) in allowed:
            unused.discard((file, word))
        else:
            refused.append(f"{file}:{line}: {word}")
    assert not refused, f"{advice}:\n" + "\n".join(refused)
    assert not unused, f"exceptions without an occurrence: {unused}"


def test_no_text_contains_a_banned_word() -> None:
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "src").rglob("*.jinja")]
    documents = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    assert_allowed(matches_in(banned_words, [*sources, *documents]), ALLOWED_WORDS, "use plain words")


def test_no_name_of_src_is_a_banned_identifier() -> None:
    assert_allowed(matches_in(banned_identifiers, (ROOT / "src").rglob("*.py")), ALLOWED_IDENTIFIERS, "name the thing")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It is told.\nAsked twice, it lies.", [(1, "told"), (2, "Asked"), (2, "lies")]),
        ("tokens a second, and one adapter a task", [(1, "adapter a task"), (1, "tokens a second")]),
        ("The page is at rest; an underlying REST call; math.floor(x); a second token.", []),
        ("the rest", [(1, "rest")]),
    ],
)
def test_words_are_matched_as_whole_words(text: str, words: list[tuple[int, str]]) -> None:
    assert sorted(banned_words(text)) == words


@pytest.mark.parametrize(
    "source",
    [
        "found = 1",
        "def kept(): ...",
        "def f(own): ...",
        "class Rows:\n    def shown(self): ...",
        "self._rest = 1",
        "sum(one for one in rows)",
        "try: ...\nexcept OSError as told: ...",
        "match x:\n    case [*rest]: ...",
    ],
)
def test_every_form_of_a_name_is_checked(source: str) -> None:
    assert len(list(banned_identifiers(source))) == 1


def test_other_names_and_strings_are_allowed() -> None:
    assert not list(banned_identifiers('rows = {"found": 1}\nfounder = rows["found"]\nprint(plainly)'))
