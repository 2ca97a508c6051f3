"""The Streamlit page: send a question to an adapter, the base or both, compare the answers, and rate them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import streamlit as st

from bilora.app.assert_runs import AssertRunner
from bilora.app.asserts import typed_asserts
from bilora.app.conversation import Answer, Backend, UserQuestion, question_problem, stream_answer
from bilora.app.header import draw_header, draw_task_descriptions
from bilora.app.history import draw_history, user_questions
from bilora.app.rating import OnRating
from bilora.app.retry import draw_fault, forget_failures
from bilora.errors import BiloraError
from bilora.params import Generation
from bilora.tasks.task import Task

_ADAPTER, _BASE, _BOTH = "adapter", "base", "side by side"
_SUBMITTED = "submitted"
"""Session key, set after the first question: the header is short from then on."""


def draw_page(
    backend: Backend,
    tasks: Mapping[str, Task],
    generation: Mapping[str, Generation],
    runner: AssertRunner,
    on_rating: OnRating,
) -> None:
    """Draw the page; Streamlit calls it again after every action.

    Args:
        backend: the engine and its adapters.
        tasks: the tasks of the page, by name.
        generation: each task's generation settings.
        runner: runs answers with the asserts of their questions.
        on_rating: stores a rating.
    """
    forget_failures()
    with st.container():  # always one element: elements that move appear twice while the script runs
        if st.session_state.get(_SUBMITTED):
            draw_header()
        else:
            draw_header(
                f"{backend.base}, {backend.location}. A small model with small adapters answers; check its answers."
            )
            draw_task_descriptions(tasks, backend.adapters)
    with st.container(horizontal=True, vertical_alignment="center"):
        task = tasks[_choose_task(tasks)]
        st.button("Use the example", on_click=_use_example, args=(task,))
    choices = [_ADAPTER, _BASE, _BOTH] if task.name in backend.adapters else [_BASE]
    if task.name not in backend.adapters:
        st.info("This task has no adapter here; only the base answers. `make demo` trains one.")
    with st.form(f"ask-{task.name}", border=False):
        typed = st.text_area(
            "Your function" if task.insert_answer else "What should the code do?",
            key=f"typed-{task.name}",
            height=172,
            placeholder=task.example,
        )
        with st.container(horizontal=True, vertical_alignment="center"):
            choice = st.radio("Answered by", choices, horizontal=True, label_visibility="collapsed")
            submitted = st.form_submit_button("Ask", type="primary", on_click=_set_submitted)
    output = st.empty()
    if submitted:
        if problem := question_problem(typed) or task.input_problem(typed):
            output.warning(problem)
        else:
            question = UserQuestion(task.name, typed, task.make_prompt(typed), generation[task.name])
            user_questions().append(question)
            systems = {_ADAPTER: [task.name], _BASE: ["base"], _BOTH: [task.name, "base"]}[choice]
            with output.container():
                _stream_answers(backend, task, question, systems, runner)
            st.rerun()
    draw_history(tasks, on_rating, form=(task.name, typed))


def draw_unavailable(tasks: Mapping[str, Task], on_rating: OnRating, error: BiloraError) -> None:
    """Draw the page without a backend: the error, the time of the next try, and the questions so far."""
    draw_header()
    draw_fault(error)
    draw_task_descriptions(tasks)
    draw_history(tasks, on_rating)


def _choose_task(tasks: Mapping[str, Task]) -> str:
    return str(
        st.segmented_control(
            "Task",
            list(tasks),
            format_func=lambda name: tasks[name].title,
            default=next(iter(tasks)),
            required=True,
            label_visibility="collapsed",
        )
        or next(iter(tasks))
    )


def _set_submitted() -> None:
    st.session_state[_SUBMITTED] = True


def _use_example(task: Task) -> None:
    st.session_state[f"typed-{task.name}"] = task.example


def _stream_answers(
    backend: Backend, task: Task, question: UserQuestion, systems: list[str], runner: AssertRunner
) -> None:
    """Stream the answers one after the other; a click on Stop ends the script, which closes the stream."""
    st.button("Stop")
    asserts = typed_asserts(question.prompt) if task.execution_metric else ()
    for column, system in zip(st.columns(len(systems)), systems, strict=True):
        sha256 = backend.adapters.get(system, "") if system != "base" else ""
        answer = Answer(secrets.token_hex(13), system, sha256, backend.base_revision)
        question.answers.append(answer)
        with column:
            st.subheader(system, anchor=False)
            box = st.empty()
            box.caption("thinking …")
            try:
                for text in stream_answer(backend.engine, task, question, answer):
                    box.text(text or "…")  # st.code would load a highlighter and run it at every token
            except BiloraError as error:
                answer.fault = str(error)
        code = task.read_answer(answer.text, question.prompt)
        if asserts and code and not answer.fault:
            answer.assert_run = runner.start(code, asserts)
