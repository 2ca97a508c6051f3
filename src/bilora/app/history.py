"""The questions and answers of this visit, newest first."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future

import streamlit as st

from bilora.app.assert_runs import AssertResult
from bilora.app.conversation import Answer, UserQuestion, escape_markdown, unified_diff
from bilora.app.rating import OnRating, draw_rating
from bilora.tasks.task import Task

_TITLE_CHARS = 80
_POLL_S = 0.5


def user_questions() -> list[UserQuestion]:
    """Return the list of questions of this visit, oldest first; Streamlit stores it until the browser leaves."""
    questions: list[UserQuestion] = st.session_state.setdefault("history", [])
    return questions


def draw_history(tasks: Mapping[str, Task], on_rating: OnRating, form: tuple[str, str] | None = None) -> None:
    """Draw the questions and answers, without an engine.

    Args:
        form: task and text of the form above, if there is one; if the newest question is the same, only its answers are
            drawn.
    """
    questions = [question for question in user_questions() if question.task in tasks]
    for number, question in reversed(list(enumerate(questions))):
        newest = number == len(questions) - 1
        task = tasks[question.task]
        if newest and form == (question.task, question.typed):
            with st.container(key="newest"):
                _draw_answers(task, question, on_rating)
            continue
        title = _title(question.typed)
        with st.expander(f"`{title}`", expanded=newest):
            if title != question.typed:
                st.code(question.typed, language="python" if task.insert_answer else None, wrap_lines=True)
            _draw_answers(task, question, on_rating)


def _title(typed: str) -> str:
    """Return the beginning of a question on one line, without backticks."""
    title = " ".join(typed.split()).replace("`", "'")
    return title if len(title) <= _TITLE_CHARS else f"{title[: _TITLE_CHARS - 1].rstrip()}…"


def _draw_answers(task: Task, question: UserQuestion, on_rating: OnRating) -> None:
    for column, answer in zip(st.columns(max(1, len(question.answers))), question.answers, strict=False):
        with column:
            _draw_answer(task, question, answer, on_rating)


def _draw_answer(task: Task, question: UserQuestion, answer: Answer, on_rating: OnRating) -> None:
    st.subheader(answer.system, anchor=False)
    if answer.fault:
        st.error(escape_markdown(answer.fault))
        return
    text = task.read_answer(answer.text, question.prompt)
    st.code(text or "(no answer)", language=task.language, wrap_lines=True)
    if run := answer.assert_run:
        _draw_result(run.result()) if run.done() else _await_result(run)
    result = text
    if task.insert_answer and text:
        applied = task.insert_answer(question.typed, text)
        result = applied.text
        if applied.reason:
            st.info(escape_markdown(applied.reason))
        elif changes := unified_diff(question.typed, result):
            st.code(changes, language="diff", wrap_lines=True)
    st.caption(answer.facts)
    st.download_button("Download", result, f"{question.task}.py", "text/x-python", key=f"download-{answer.id}")
    if text:
        draw_rating(question, answer, text, on_rating)


def _draw_result(result: AssertResult) -> None:
    draw = {"passes": st.success, "fails": st.error, "unknown": st.warning}[result.verdict]
    draw(escape_markdown(result.sentence))


@st.fragment(run_every=_POLL_S)
def _await_result(run: Future[AssertResult]) -> None:
    """Poll a run until it has ended; only this fragment is drawn again, so the page stays usable."""
    if run.done():
        st.rerun()
    st.caption("Running it in the sandbox with your asserts …")
