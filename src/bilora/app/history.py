"""The questions of this visit with their answers, the newest first."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING

import streamlit as st

from bilora.app.assert_runs import AssertResult
from bilora.app.conversation import Answer, UserQuestion, escape_markdown, unified_diff
from bilora.app.rating import OnRating, draw_rating
from bilora.tasks.task import Task

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

_TITLE_CHARS = 80
_POLL_S = 0.2
_Unfinished = list[tuple["DeltaGenerator", Future[AssertResult]]]
"""Runs of asserts that go on, each with the place where its result will be drawn."""


def user_questions() -> list[UserQuestion]:
    """Return the questions of this visit, the oldest first; what is appended stays until the browser leaves."""
    questions: list[UserQuestion] = st.session_state.setdefault("history", [])
    return questions


def draw_history(tasks: Mapping[str, Task], on_rating: OnRating, form: tuple[str, str] | None = None) -> None:
    """Draw the questions and answers; this needs no engine.

    Args:
        form: task and text in the form above, if there is one: the newest question is not repeated below it.
    """
    questions = [question for question in user_questions() if question.task in tasks]
    unfinished: _Unfinished = []
    for number, question in reversed(list(enumerate(questions))):
        newest = number == len(questions) - 1
        task = tasks[question.task]
        if newest and form == (question.task, question.typed):
            with st.container(key="newest"):
                _draw_answers(task, question, on_rating, unfinished)
            continue
        title = _title(question.typed)
        with st.expander(f"`{title}`", expanded=newest):
            if title != question.typed:
                st.code(question.typed, language="python" if task.apply else None, wrap_lines=True)
            _draw_answers(task, question, on_rating, unfinished)
    _await_results(unfinished)


def _title(typed: str) -> str:
    """Return a question's beginning on one line, without backticks."""
    title = " ".join(typed.split()).replace("`", "'")
    return title if len(title) <= _TITLE_CHARS else f"{title[: _TITLE_CHARS - 1].rstrip()}…"


def _draw_answers(task: Task, question: UserQuestion, on_rating: OnRating, unfinished: _Unfinished) -> None:
    for column, answer in zip(st.columns(max(1, len(question.answers))), question.answers, strict=False):
        with column:
            _draw_answer(task, question, answer, on_rating, unfinished)


def _draw_answer(
    task: Task, question: UserQuestion, answer: Answer, on_rating: OnRating, unfinished: _Unfinished
) -> None:
    st.subheader(answer.system, anchor=False)
    if answer.fault:
        st.error(escape_markdown(answer.fault))
        return
    text = task.read_answer(answer.text, question.prompt)
    st.code(text or "(no answer)", language=task.language, wrap_lines=True)
    if answer.assert_run:
        _draw_assert_run(answer.assert_run, unfinished)
    result = text
    if task.apply and text:
        applied = task.apply(question.typed, text)
        result = applied.text
        if applied.reason:
            st.info(escape_markdown(applied.reason))
        elif changes := unified_diff(question.typed, result):
            st.code(changes, language="diff", wrap_lines=True)
    st.caption(answer.facts)
    st.download_button("Download", result, f"{question.task}.py", "text/x-python", key=f"download-{answer.id}")
    if text:
        draw_rating(question, answer, text, on_rating)


def _draw_assert_run(run: Future[AssertResult], unfinished: _Unfinished) -> None:
    place = st.empty()
    if run.done():
        _draw_result(place, run.result())
    else:
        unfinished.append((place, run))


def _draw_result(place: DeltaGenerator, result: AssertResult) -> None:
    draw = {"passes": place.success, "fails": place.error, "unknown": place.warning}[result.verdict]
    draw(escape_markdown(result.sentence))


def _await_results(unfinished: _Unfinished) -> None:
    """Draw each result when it is there. A call of Streamlit ends this run of the script if somebody has clicked."""
    began = time.monotonic()
    while unfinished:
        for place, _ in unfinished:
            place.caption(f"Running it in the sandbox with what it must pass … {time.monotonic() - began:.0f} s")
        wait([run for _, run in unfinished], timeout=_POLL_S, return_when="FIRST_COMPLETED")
        for place, run in unfinished:
            if run.done():
                _draw_result(place, run.result())
        unfinished = [(place, run) for place, run in unfinished if not run.done()]
