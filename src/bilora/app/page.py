"""The Streamlit page: ask an adapter, watch it answer, compare it with the base, rate the answer."""

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
_ASKED = "asked"
"""Whether this visitor has asked: the head is short from then on, so that the answer comes higher up."""


def draw_page(
    offer: Backend,
    tasks: Mapping[str, Task],
    generation: Mapping[str, Generation],
    runner: AssertRunner,
    on_rating: OnRating,
) -> None:
    """Draw the page once; Streamlit calls it again after every action.

    Args:
        offer: the engine and its adapters.
        tasks: the tasks that the page offers, by name.
        generation: each task's generation settings.
        runner: runs answers with the asserts of their questions.
        on_rating: stores a rating.
    """
    forget_failures()
    with st.container():  # one place in any case: what moves is on the page twice while the script runs
        if st.session_state.get(_ASKED):
            draw_header()
        else:
            draw_header(
                f"{offer.base}, {offer.place}. A small model with small adapters answers; check before you use it."
            )
            draw_task_descriptions(tasks, offer.adapters)
    with st.container(horizontal=True, vertical_alignment="center"):
        task = tasks[_choose_task(tasks)]
        st.button("Use the example", on_click=_take_example, args=(task,))
    systems = [_ADAPTER, _BASE, _BOTH] if task.name in offer.adapters else [_BASE]
    if task.name not in offer.adapters:
        st.info("There is no adapter for this task here; the base answers alone. `make demo` trains one.")
    with st.form(f"ask-{task.name}", border=False):
        typed = st.text_area(
            "Your function" if task.insert_answer else "What should the code do?",
            key=f"typed-{task.name}",
            height=172,
            placeholder=task.example,
        )
        with st.container(horizontal=True, vertical_alignment="center"):
            choice = st.radio("Answered by", systems, horizontal=True, label_visibility="collapsed")
            submitted = st.form_submit_button("Ask", type="primary", on_click=_note_ask)
    place = st.empty()
    if submitted:
        if problem := question_problem(typed) or task.input_problem(typed):
            place.warning(problem)
        else:
            question = UserQuestion(task.name, typed, task.make_prompt(typed), generation[task.name])
            user_questions().append(question)
            asked = {_ADAPTER: [task.name], _BASE: ["base"], _BOTH: [task.name, "base"]}[choice]
            with place.container():
                _ask(offer, task, question, asked, runner)
            st.rerun()
    draw_history(tasks, on_rating, form=(task.name, typed))


def draw_unavailable(tasks: Mapping[str, Task], on_rating: OnRating, error: BiloraError) -> None:
    """Draw the page while nothing can answer: why, when it is tried again, and the questions so far."""
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


def _note_ask() -> None:
    st.session_state[_ASKED] = True


def _take_example(task: Task) -> None:
    st.session_state[f"typed-{task.name}"] = task.example


def _ask(offer: Backend, task: Task, question: UserQuestion, systems: list[str], runner: AssertRunner) -> None:
    """Stream the answers one after the other. A click on Stop ends this run of the script, which closes the stream."""
    st.button("Stop")
    asserts = typed_asserts(question.prompt) if task.execution_metric else ()
    for column, system in zip(st.columns(len(systems)), systems, strict=True):
        sha256 = offer.adapters.get(system, "") if system != "base" else ""
        answer = Answer(secrets.token_hex(13), system, sha256, offer.base_revision)
        question.answers.append(answer)
        with column:
            st.subheader(system, anchor=False)
            box = st.empty()
            box.caption("thinking …")
            try:
                for text in stream_answer(offer.engine, task, question, answer):
                    box.text(text or "…")  # a highlighter would have to be loaded first, and run at every token
            except BiloraError as error:
                answer.fault = str(error)
        code = task.read_answer(answer.text, question.prompt)
        if asserts and code and not answer.fault:
            answer.assert_run = runner.start(code, asserts)
