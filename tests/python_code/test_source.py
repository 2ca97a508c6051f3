from __future__ import annotations

import ast

import pytest

from bilora.python_code.source import TOO_DEEP, normalized, parse, parse_error, tidy

PLAIN = "def f(x):\n    if x:\n        return 1\n    return 2"


@pytest.mark.parametrize(
    "code",
    [
        "\ufeff" + PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.replace("\n", "\r\n", 1).replace("    return 2", "    return 2\r"),
        PLAIN.replace("    ", "\t"),
        PLAIN.replace("\n", " \t\n"),
        "\f" + PLAIN.replace("\n    if", "\n  \f    if"),
        PLAIN.replace("\n", "\f\n"),
        "\n\n" + PLAIN + "\n\n",
    ],
    ids=[
        "BOM",
        "CRLF",
        "CR",
        "mixed",
        "tabs",
        "trailing blanks",
        "form feeds",
        "form feeds at the ends",
        "blank lines",
    ],
)
def test_equal_programs_are_tidied_to_equal_text(code: str) -> None:
    assert ast.dump(parse(code) or ast.Module()) == ast.dump(ast.parse(PLAIN))
    assert tidy(code) == PLAIN


@pytest.mark.parametrize("text", ["a\u2028b", "a\x85b", "a\x1cb", "a\x0bb", "'\ufeff'"])
def test_no_other_character_is_a_line_end(text: str) -> None:
    assert normalized(text) == text


@pytest.mark.parametrize(
    "code", ["x = '''a\n\tb'''", "x = '''a  \nb'''", "x = '''\n\fb'''", "def f():\n\tx = '''\n\ty'''\n\treturn x"]
)
def test_a_string_is_unchanged(code: str) -> None:
    assert tidy(code) == code


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def f(:", "line 1: "),
        ("x = 1\nprint 'a'", "line 2: "),
        ("x = '\0'", "null"),
        ("x = '\ud83d'", "surrogates"),
        ("x = " + "(" * 250 + ")" * 250, TOO_DEEP),
        ("x = " + " + ".join("a" * 300), TOO_DEEP),
        ("x = a" + ".b" * 500, TOO_DEEP),
        ("x = " + "-" * 5000 + "1", TOO_DEEP),
        ("".join(" " * depth + "if x:\n" for depth in range(150)) + " " * 150 + "pass", TOO_DEEP),
        ("x = 0x" + "f" * 5000, "an integer too long"),
        ("x = " + "9" * 5000, "line 1: Exceeds the limit"),
    ],
)
def test_a_tree_that_cannot_be_walked_is_refused_with_a_reason(code: str, reason: str) -> None:
    assert parse(code) is None and reason in parse_error(code)


def test_a_parsed_tree_can_be_walked_recursively() -> None:
    deep = parse("x = " + " + ".join("a" * 110))
    assert deep and len(ast.dump(deep)) > 110 and ast.unparse(deep)
    assert parse_error(PLAIN) == ""
