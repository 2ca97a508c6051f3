"""A typed text becomes a training prompt, and an answer is inserted into the text."""

from __future__ import annotations

import ast

import pytest

from bilora.tasks.docstring import TASK, question

BARE = "def f(a):\n    b = a + 1\n    return b"
TYPED = [
    BARE,
    f"\n{BARE}\n",
    f"```python\n{BARE}\n```",
    'def f(a):\n    """Old words."""\n    b = a + 1\n    return b',
    f"What does this do?\n```python\n{BARE}\n```",
]


@pytest.mark.parametrize("typed", TYPED)
def test_a_typed_function_becomes_the_training_prompt(typed: str) -> None:
    assert TASK.make_prompt(typed) == question(BARE)


@pytest.mark.parametrize("typed", TYPED)
def test_an_answer_becomes_the_docstring_and_nothing_else_changes(typed: str) -> None:
    written = TASK.insert_answer(typed, "Add one.").text
    assert written.replace('    """Add one."""\n', "") == BARE
    assert ast.get_docstring(ast.parse(written).body[0]) == "Add one."  # type: ignore[arg-type]


@pytest.mark.parametrize("summary", ['say """no"""', "a \\ b", 'ends in "'])
def test_no_answer_breaks_the_code(summary: str) -> None:
    ast.parse(TASK.insert_answer(BARE, summary).text)


def test_other_text_is_unchanged() -> None:
    assert (
        TASK.make_prompt(" what is this? ") == "what is this?" and TASK.insert_answer("what?", "That.").text == "what?"
    )


def test_the_example_is_a_function_as_one_types_it() -> None:
    assert TASK.make_prompt(TASK.example) == question(TASK.example)
