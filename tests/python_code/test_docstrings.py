from __future__ import annotations

import pytest

from bilora.python_code.docstrings import ascii_punctuation, summary_text

SUMMARY = "Add up the numbers."
NAPOLEON = """
Args Arguments Attention Attributes Caution Danger Error Example Examples Hint Important Keyword_Args
Keyword_Arguments Methods Note Notes Other_Parameters Parameters Receive Receives Return Returns Raise Raises
References See_Also Tip Todo Warning Warnings Warn Warns Yield Yields
"""
NUMPYDOC = (
    "Parameters Returns Yields Receives Raises Warns Warnings See_Also Notes References Examples Attributes Methods"
)
OTHERS = (
    "Params Kwargs Input Inputs Output Outputs Exceptions Usage Usage_Example Example_Usage Author Since Side_Effects"
)


def names(text: str) -> list[str]:
    return [name.replace("_", " ") for name in text.split()]


@pytest.mark.parametrize("form", ["{}:", "{}::", "  {} :", "{}"])
@pytest.mark.parametrize("name", [*names(NAPOLEON), *names(OTHERS)])
def test_a_section_of_napoleon_ends_the_summary(name: str, form: str) -> None:
    assert summary_text(f"{SUMMARY}\n{form.format(name)}\n    all of it") == SUMMARY


@pytest.mark.parametrize("name", ["keyword args", "SEE ALSO", "Keyword args", "returns"])
def test_with_a_colon_case_does_not_matter(name: str) -> None:
    assert summary_text(f"{SUMMARY}\n{name}:\n    all of it") == SUMMARY


@pytest.mark.parametrize("rule", ["------", "======", "~~~"])
@pytest.mark.parametrize("name", [*names(NUMPYDOC), "see also", "A Heading of its own"])
def test_an_underlined_heading_ends_the_summary(name: str, rule: str) -> None:
    assert summary_text(f"{SUMMARY}\n{name}\n{rule}\nall of it") == SUMMARY


@pytest.mark.parametrize(
    "line",
    [
        ":param int x: a number", ":return: a sum", ":rtype: int", "@param x: a number", "@return a sum",
        ">>> add([1])", ".. note:: slow", "Note: slow", "Returns: the sum", "Author: X. Y.", "Usage: add([1])",
    ],
)  # fmt: skip
def test_fields_doctests_and_named_lines_end_the_summary(line: str) -> None:
    assert summary_text(f"{SUMMARY}\n{line}") == SUMMARY


@pytest.mark.parametrize(
    "docstring",
    [
        "Add up numbers of\n:class:`Items` given.",
        "Add up the\nnotes of the list.",
        "Add up numbers, as the\ninput: a list.",
        "Add up the\nerror and the\nindex",
        "Return the methods\nattributes\nof it.",
        "Add up\nReturns of investment.",
        "Add up a: b - c.",
    ],
)
def test_wrapped_prose_does_not_end_the_summary(docstring: str) -> None:
    assert summary_text(docstring) == docstring


def test_a_directive_at_the_beginning_is_part_of_the_summary() -> None:
    assert summary_text(".. deprecated:: 3.1\ndo not use it") == ".. deprecated:: 3.1\ndo not use it"


@pytest.mark.parametrize("docstring", [f"add\n===\n{SUMMARY}", f"The add function\n-----\n\n{SUMMARY}\n\nMore."])
def test_an_underlined_title_is_skipped(docstring: str) -> None:
    assert summary_text(docstring).partition("\n")[0] == SUMMARY


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_do_not_matter(end: str) -> None:
    assert summary_text("Add up\n    the numbers.\n    Args:\n        x: a number".replace("\n", end)).split() == [
        *SUMMARY.split()
    ]


def test_only_typographic_punctuation_becomes_ascii() -> None:
    assert ascii_punctuation("“a”\u00a0‘b’ – c—d … e\u00adf ﬁ ≤ é α × 中") == "\"a\" 'b' - c-d ... ef fi ≤ é α × 中"
