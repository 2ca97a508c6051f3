"""The display of older questions, and of docstrings inserted into a function."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest


def history(typed: str, text: str) -> None:
    import streamlit as st

    from bilora.app.conversation import Answer, UserQuestion
    from bilora.app.history import draw_history
    from bilora.params import Generation
    from bilora.tasks import load_task

    task = load_task("docstring")
    question = UserQuestion("docstring", typed, task.make_prompt(typed), Generation(max_new_tokens=8, batch_size=1))
    question.answers.append(Answer("g1", "docstring", "a" * 64, "b" * 40, text=text))
    st.session_state["history"] = [question]
    draw_history({"docstring": task}, lambda question, answer, entered: "")


def page(typed: str, text: str) -> AppTest:
    run = AppTest.from_function(history, args=(typed, text), default_timeout=60).run()
    assert not run.exception
    return run


def test_a_docstring_that_was_put_in_shows_as_a_difference() -> None:
    run = page("def f(x): return x", "Here is the docstring:\n\nSay it.")
    assert run.code[0].value == "Say it."
    assert '+    """Say it."""' in run.code[1].value and not run.info


@pytest.mark.parametrize(
    ("typed", "message"),
    [("what is this?", "no complete Python function"), ("def f(): return 1\ndef g(): return 2", "several")],
)
def test_a_docstring_that_cannot_be_inserted_says_why(typed: str, message: str) -> None:
    run = page(typed, "Say it.")
    assert [message in element.value for element in run.info] == [True]
    assert [element.value for element in run.code][-1] == "Say it." and "before" not in str(run.code)


@pytest.mark.parametrize(("typed", "shown_again"), [("def f(x): return x", False), ("def f(x):\n    return x", True)])
def test_a_question_that_fits_into_its_title_is_not_repeated(typed: str, shown_again: bool) -> None:
    assert (page(typed, "Say it.").code[0].value == typed) == shown_again
