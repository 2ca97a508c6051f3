"""A sentence becomes the docstring of a user's function, and nothing else changes."""

from __future__ import annotations

import ast
import inspect
import json
import random
import sys

import pytest

from bilora.extraction.insertion import UNREADABLE, insert_docstring
from bilora.extraction.user_function import LINE_END, NO_FUNCTION, SEVERAL_FUNCTIONS

BODY = "def area(r):\n    if r < 0:\n        raise ValueError(r)\n    return 3 * r * r"
HERE = '"""Say it."""'
IN_PLACE = {
    "two lines": ("def f(x):\n    return x", f"def f(x):\n    {HERE}\n    return x"),
    "one line": ("def f(x): return x", f"def f(x):\n    {HERE}\n    return x"),
    "one line, comment": ("def f(x): return x  # why", f"def f(x):\n    {HERE}\n    return x  # why"),
    "one line, two statements": ("def f(x): x += 1; return x", f"def f(x):\n    {HERE}\n    x += 1; return x"),
    "one line, continued": ("def f(x): \\\n    return x", f"def f(x):\n    {HERE}\n    return x"),
    "stub": ("def f(x): ...", f"def f(x):\n    {HERE}\n    ..."),
    "async": ("async def f(x):\n    await x", f"async def f(x):\n    {HERE}\n    await x"),
    "decorated": ("@a\n@b(1)\ndef f(x):\n    return x", f"@a\n@b(1)\ndef f(x):\n    {HERE}\n    return x"),
    "method": ("class A:\n    @property\n    def f(self): return 1", f"class A:\n    @property\n    def f(self):\n        {HERE}\n        return 1"),
    "tabs": ("class A:\n\tdef f(self):\n\t\treturn 1", f"class A:\n\tdef f(self):\n\t\t{HERE}\n\t\treturn 1"),
    "tabs, one line": ("if 1:\n\tdef f(x): return x", f"if 1:\n\tdef f(x):\n\t\t{HERE}\n\t\treturn x"),
    "three spaces": ("def f(x):\n   return x", f"def f(x):\n   {HERE}\n   return x"),
    "comments": ("def f(x):  # a\n    # b\n\n    # c\n    return x", f"def f(x):  # a\n    {HERE}\n    # b\n\n    # c\n    return x"),
    "type comment": ("def f(x):\n    # type: (int) -> int\n    # b\n    return x", f"def f(x):\n    # type: (int) -> int\n    {HERE}\n    # b\n    return x"),
    "ignored type": ("import a  # type: ignore\n\ndef f(x):\n    return a  # type: ignore", f"import a  # type: ignore\n\ndef f(x):\n    {HERE}\n    return a  # type: ignore"),
    "long signature": ("def f(\n    x,\n    y=(1,\n       2),\n):\n    return x", f"def f(\n    x,\n    y=(1,\n       2),\n):\n    {HERE}\n    return x"),
    "nested": ("def f(x):\n    def g():\n        return x\n    return g", f"def f(x):\n    {HERE}\n    def g():\n        return x\n    return g"),
    "overloads": (
        "@overload\ndef f(x: int) -> int: ...\n@typing.overload\ndef f(x: str) -> str:\n    pass\ndef f(x):\n    return x",
        f"@overload\ndef f(x: int) -> int: ...\n@typing.overload\ndef f(x: str) -> str:\n    pass\ndef f(x):\n    {HERE}\n    return x",
    ),
    "imports before, use after": ("import a\n\ndef f(x):\n    return a\n\nprint(f(1))", f"import a\n\ndef f(x):\n    {HERE}\n    return a\n\nprint(f(1))"),
    "in a branch": ("try:\n    import f\nexcept ImportError:\n    def f(x):\n        return x", f"try:\n    import f\nexcept ImportError:\n    def f(x):\n        {HERE}\n        return x"),
    "in a case": ("match 1:\n    case 1:\n        def f(x): return x", f"match 1:\n    case 1:\n        def f(x):\n            {HERE}\n            return x"),
    "has one": ('def f(x):\n    """Old.\n\n    Args:\n        x: it\n    """\n    return x', f"def f(x):\n    {HERE}\n    return x"),
    "has a raw one": ("def f(x):\n    r'''Old \\d'''  # noqa\n    return x", f"def f(x):\n    {HERE}  # noqa\n    return x"),
    "has one in pieces": ('def f(x):\n    ("a"\n     "b")\n    return x', f"def f(x):\n    {HERE}\n    return x"),
    "has one, statement behind": ('def f(x):\n    "Old"; y = 1\n    return y', f"def f(x):\n    {HERE}; y = 1\n    return y"),
    "has one on its line": ('def f(x): "Old"; return x', f"def f(x): {HERE}; return x"),
    "has nothing else": ('def f(x):\n    """Old."""', f"def f(x):\n    {HERE}"),
    "bytes are none": ('def f(x):\n    b"no"\n    return x', f'def f(x):\n    {HERE}\n    b"no"\n    return x'),
    "a formatted string is none": ('def f(x):\n    f"{x}"\n    return x', f'def f(x):\n    {HERE}\n    f"{{x}}"\n    return x'),
    "mixed line ends": ("import a\r\ndef f(x):\r    y = x\n    return y\r\n\r\nb = 1", f"import a\r\ndef f(x):\r    {HERE}\r    y = x\n    return y\r\n\r\nb = 1"),
    "form feeds": ("import a\n\x0c\ndef f(x):\n    return '\x0c'", f"import a\n\x0c\ndef f(x):\n    {HERE}\n    return '\x0c'"),
    "form feed before": ("\x0cdef f(x):\n    return x", f"\x0cdef f(x):\n    {HERE}\n    return x"),
    "blanks at line ends": ("def f(x):   \n    return x   \n", f"def f(x):   \n    {HERE}\n    return x   "),
    "byte order mark": ("\ufeffdef f(x):\n    return x", f"def f(x):\n    {HERE}\n    return x"),
}  # fmt: skip
WITHIN = {
    "fence": f"```python\n{BODY}\n```",
    "py": f"```py\n{BODY}\n```",
    "capital": f"```Python\n{BODY}\n```",
    "tildes": f"~~~python3\n{BODY}\n~~~",
    "prose and fence": f"What is this?\n\n```\n{BODY}\n```\nThanks!",
    "shell and fence": f"```sh\nls\n```\n```python\n{BODY}\n```",
    "list": "1. This:\n\n   ```python\n" + "\n".join(f"   {line}" for line in BODY.split("\n")) + "\n   ```",
    "prose": f"Here is mine:\n\n{BODY}\n\nWhat does it do?",
    "indented": "\n".join(f"    {line}" for line in BODY.split("\n")),
    "interpreter": ">>> " + BODY.replace("\n", "\n... "),
    "newlines around": f"\n\n{BODY}\n\n",
}
SENTENCES = [
    'Say "hi" to \\ all.', 'He said """x""" and "', '"quoted"', '""""', "ends with \\", "'''", "\\N{DASH} \\x41 {x} %s",
    "a\nb\n\n  c", "x\r\n  y", "a\n   \nb", "\u6f22\u5b57 \u00e9 \U0001f600", "nul \0 and \ud800 half", "tab\there",
    "\u202e turned \x0c \x85 \u2028 about", "   leading", "# no comment", "```",
]  # fmt: skip


@pytest.mark.parametrize(("typed", "written"), IN_PLACE.values(), ids=IN_PLACE)
def test_only_the_docstring_is_new(typed: str, written: str) -> None:
    inserted = insert_docstring(typed, "Say it.")
    assert (inserted.text, inserted.reason) == (written, "")


@pytest.mark.parametrize("typed", WITHIN.values(), ids=WITHIN)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_function_is_found_within_a_text(typed: str, end: str) -> None:
    inserted = insert_docstring(typed.replace("\n", end), "Say it.")
    assert inserted.text == BODY.replace("(r):\n", f"(r):\n    {HERE}\n").replace("\n", end)


@pytest.mark.parametrize("sentence", SENTENCES)
@pytest.mark.parametrize("typed", ["def f(x): return x", 'class A:\r\n\tdef f(self):\r\n\t\t"Old"; return 1\r\n'])
def test_every_sentence_is_quoted(typed: str, sentence: str) -> None:
    inserted = insert_docstring(typed, sentence)
    function = next(node for node in ast.walk(ast.parse(inserted.text)) if isinstance(node, ast.FunctionDef))
    wanted = inspect.cleandoc(LINE_END.sub("\n", sentence)).replace("\n   \n", "\n\n").strip()
    assert (ast.get_docstring(function), inserted.reason) == (wanted, "")
    assert inserted.text.count("\n") == inserted.text.count("\r\n") or "\r" not in typed


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("what does sorted do?", NO_FUNCTION),
        ("f = lambda x: x", NO_FUNCTION),
        ("def f(x:\n    return x", NO_FUNCTION),
        ("def f(x):\n    return '\0'", NO_FUNCTION),
        (f"{BODY}\n\n{BODY.replace('area', 'other')}", SEVERAL_FUNCTIONS),
        (f"```python\n{BODY}\n```\nor\n```python\n{BODY}\n```", SEVERAL_FUNCTIONS),
        ("class A:\n    def f(self): return 1\n    def g(self): return 2", SEVERAL_FUNCTIONS),
        ("", NO_FUNCTION),
    ],
)
def test_a_text_without_one_function_is_unchanged_with_a_reason(typed: str, reason: str) -> None:
    inserted = insert_docstring(typed, "Say it.")
    assert (inserted.text, inserted.reason) == (typed, reason)


@pytest.mark.parametrize("empty", ["", " \n\t"])
def test_an_empty_answer_is_not_inserted(empty: str) -> None:
    inserted = insert_docstring(BODY, empty)
    assert inserted.text == BODY and "empty" in inserted.reason


def test_a_change_that_would_alter_the_program_is_not_made() -> None:
    typed = "def f(x): return '\x0c'"  # a form feed on the line that has to be rewritten
    inserted = insert_docstring(typed, "Say it.")
    assert (inserted.text, inserted.reason) == (typed, UNREADABLE)


def test_code_nested_too_deeply_is_unchanged_with_a_reason() -> None:
    deep = "def f(x):\n    return " + " + ".join(["x"] * 5_000)
    inserted = insert_docstring(deep, "Say it.")
    assert inserted.text == deep and inserted.reason


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the interpreter cannot read type parameters")
def test_type_parameters_are_kept() -> None:
    assert insert_docstring("def f[T](x: T) -> T: return x", "Say it.").text.startswith(
        f"def f[T](x: T) -> T:\n    {HERE}"
    )


def test_any_text_gives_a_program_or_a_reason() -> None:
    pieces = ["def f(x):", "\n", "\r", "    ", "\t", "return x", '"""', "'", "#", "@a\n", "class A:\n", "```", ">>> ", "... ",
              ": ", "async ", "\\", "\x0c", "\0", "\ud800", "(", ")", ";", "pass", "if x:\n", "# type: (int) -> int\n"]  # fmt: skip
    draw = random.Random(7)
    for _ in range(3_000):
        typed = "".join(draw.choices(pieces, k=draw.randrange(1, 25)))
        inserted = insert_docstring(typed, "Say it.")
        if inserted.reason:
            assert inserted.text == typed
        else:
            assert "Say it." in json.dumps(ast.dump(ast.parse(inserted.text)))
