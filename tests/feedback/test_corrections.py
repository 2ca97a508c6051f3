"""A correction is complete if its training row loses only its wrapping."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bilora.feedback.corrections import is_complete, is_empty
from bilora.tasks import load_task

CODE = load_task("codegen")
TEXT = load_task("docstring")
BODY = "def f(x):\n    return x + 1"
IMPORT = "import math"


@pytest.mark.parametrize(
    "edited",
    [
        BODY,
        BODY.replace("\n", "\r\n"),
        BODY.replace("\n", "\r"),
        f"\n\n  \n{BODY}   \n\n",
        BODY.replace("    ", "\t"),
        "    " + BODY.replace("\n", "\n    "),
        f"```python\n{BODY}\n```",
        f"```\n{BODY}\n```",
        f"~~~~python\n{BODY}\n~~~~",
        f"<think>\nIt adds one.\n</think>\n```python\n{BODY}\n```",
    ],
)
def test_the_wrapping_of_code_does_not_count(edited: str) -> None:
    assert is_complete(CODE, edited, BODY)


@pytest.mark.parametrize(
    "edited",
    [
        f"{BODY}\n\nprint(f(1))",
        f"# adds one\n{BODY}",
        f"{BODY}  # one more",
        BODY.replace("return", "    return"),
        f"```python\n{IMPORT}\n```\n```python\n{BODY}\n```",
        f"```python\n{BODY}\n```\nIt works.",
        f"Use this:\n```python\n{BODY}\n```",
        f"```python\n{BODY}\n```\n```python\n{BODY}\n```",
    ],
)
def test_other_text_of_the_user_counts(edited: str) -> None:
    assert not is_complete(CODE, edited, BODY)


def test_blocks_that_extraction_joins_are_complete() -> None:
    joined = f"{IMPORT}\n\n{BODY}"
    assert is_complete(CODE, f"```python\n{IMPORT}\n```\n\n```python\n{BODY}\n```\n", joined)
    assert not is_complete(CODE, f"```python\n{IMPORT}\n```\nthen\n```python\n{BODY}\n```\n", joined)


def test_a_correction_that_extraction_changes_is_not_complete() -> None:
    """As an answer it is fenced, and its own fence would then end it."""
    cut = replace(CODE, extract=lambda text: text[:10])
    assert not is_complete(cut, BODY, BODY)


@pytest.mark.parametrize(
    ("edited", "whole"),
    [
        ("Return it.", True),
        ("Return\r\n  it.", True),
        ('r"""Return it."""', True),
        ("`Return it.`", True),
        ("```\nReturn it.\n```", True),
        ("Return it.\n\nOr raise.", False),
        ("Return it.\n\nArgs:\n    x: what to return.", False),
        ('def f(x):\n    """Return it."""\n    return x', False),
        ("Summary: Return it.", False),
    ],
)
def test_every_word_of_a_sentence_counts(edited: str, whole: bool) -> None:
    assert is_complete(TEXT, edited, "Return it.") is whole


@pytest.mark.parametrize("edited", ["", " \n", "```\n```", "```python\n\n```\n~~~\n~~~", "<think>hm</think>"])
def test_wrapping_alone_is_empty(edited: str) -> None:
    assert is_empty(edited)


@pytest.mark.parametrize("edited", ["x", "```\nx\n```", "<think>", "```"])
def test_anything_else_is_not_empty(edited: str) -> None:
    assert not is_empty(edited)
