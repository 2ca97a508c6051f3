"""The Streamlit page: ask an adapter, watch it answer, compare it with the base, rate the answer."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping

import streamlit as st

from bilora.app.conversation import (
    Answer,
    Offer,
    RatingInput,
    UserQuestion,
    escape_markdown,
    question_problem,
    stream_answer,
    unified_diff,
)
from bilora.errors import BiloraError
from bilora.params import Generation
from bilora.tasks.task import Task

OnRating = Callable[[UserQuestion, Answer, RatingInput], str]
"""Stores a rating durably and returns its id, or raises."""

_ADAPTER, _BASE, _BOTH = "adapter", "base", "side by side"
_REASONS = ("wrong", "incomplete", "hard to read", "too long")
_TITLE_CHARS = 80
_STYLE = """<style>
.stMainBlockContainer {padding-top: 3rem; max-width: 80rem}
.stExpander summary code {font: inherit; color: inherit; background: none; padding: 0}
</style>"""
"""A question's title is set as code, so that no Markdown is rendered, and styled as plain text."""
_CONSENT = (
    "My question, the answer and my rating may be stored in the project's collection of ratings and used to "
    "train and measure its adapters."
)


def draw_page(
    offer: Offer, tasks: Mapping[str, Task], generation: Mapping[str, Generation], on_rating: OnRating
) -> None:
    """Draw the page once; Streamlit calls it again after every action.

    Args:
        offer: the engine and its adapters.
        tasks: the tasks that the page offers, by name.
        generation: each task's generation settings.
        on_rating: stores a rating.
    """
    history: list[UserQuestion] = st.session_state.setdefault("history", [])
    st.html(_STYLE)
    st.title("BiLoRA", anchor=False)
    st.caption(f"{offer.base}, {offer.place}. A small model with small adapters answers; check before you use it.")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        task = tasks[_choose_task(tasks)]
        st.button("Use the example", on_click=_take_example, args=(task,))
    systems = [_ADAPTER, _BASE, _BOTH] if task.name in offer.adapters else [_BASE]
    if task.name not in offer.adapters:
        st.info("There is no adapter for this task here; the base answers alone. `make demo` trains one.")
    with st.form(f"ask-{task.name}", border=False):
        typed = st.text_area(
            "Your function" if task.apply else "What should the code do?",
            key=f"typed-{task.name}",
            height=180,
            placeholder=task.example,
        )
        choice = st.radio("Answered by", systems, horizontal=True)
        submitted = st.form_submit_button("Ask", type="primary")
    if submitted:
        if problem := question_problem(typed):
            st.warning(problem)
        else:
            question = UserQuestion(task.name, typed, task.ask(typed), generation[task.name])
            history.append(question)
            _ask(offer, task, question, {_ADAPTER: [task.name], _BASE: ["base"], _BOTH: [task.name, "base"]}[choice])
            st.rerun()
    draw_history(tasks, on_rating)


def draw_error(error: BiloraError) -> None:
    """Draw an error in place of the form."""
    st.error(escape_markdown(str(error)))


def draw_history(tasks: Mapping[str, Task], on_rating: OnRating) -> None:
    """Draw the questions so far, the newest first; this needs no engine."""
    history: list[UserQuestion] = st.session_state.get("history", [])
    for number, question in reversed(list(enumerate(history))):
        if question.task in tasks:
            _draw_question(tasks[question.task], question, on_rating, newest=number == len(history) - 1)


def _choose_task(tasks: Mapping[str, Task]) -> str:
    return str(
        st.segmented_control(
            "Task", list(tasks), format_func=lambda name: tasks[name].title, default=next(iter(tasks)), required=True
        )
        or next(iter(tasks))
    )


def _take_example(task: Task) -> None:
    st.session_state[f"typed-{task.name}"] = task.example


def _ask(offer: Offer, task: Task, question: UserQuestion, systems: list[str]) -> None:
    """Stream the answers one after the other. A click on Stop ends this run of the script, which closes the stream."""
    st.button("Stop")
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


def _draw_question(task: Task, question: UserQuestion, on_rating: OnRating, *, newest: bool) -> None:
    title = " ".join(question.typed.split()).replace("`", "'")
    title = title if len(title) <= _TITLE_CHARS else f"{title[: _TITLE_CHARS - 1].rstrip()}…"
    with st.expander(f"`{title}`", expanded=newest):
        st.code(question.typed, language="python" if task.apply else None, wrap_lines=True)
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
    if not text:
        return
    if answer.rating:
        st.success(f"Thank you, your rating is kept as {answer.rating}. By this id it can be deleted.")
        with st.expander("Change your rating, or take your consent back"):
            _draw_rating(question, answer, text, on_rating)
    else:
        _draw_rating(question, answer, text, on_rating)


def _draw_rating(question: UserQuestion, answer: Answer, text: str, on_rating: OnRating) -> None:
    """Draw the form that rates an answer, or changes its rating; it shows what was entered before."""
    with st.form(f"rate-{answer.id}"):
        thumb = st.feedback("thumbs", key=f"thumb-{answer.id}")
        with st.expander("Correct it, or say why"):
            edited = st.text_area("How it should read", text, key=f"edit-{answer.id}", height=160)
            reasons = st.multiselect("What is wrong with it?", _REASONS, key=f"why-{answer.id}")
            comment = st.text_input("Anything else", key=f"comment-{answer.id}", max_chars=2000)
        consent = st.checkbox(_CONSENT, key=f"consent-{answer.id}")
        if not st.form_submit_button("Change the rating" if answer.rating else "Rate"):
            return
    if thumb is None:
        st.warning("Choose a thumb first.")
        return
    entered = RatingInput(
        rating="up" if thumb else "down",
        tags=tuple(reasons),
        edited=edited if _without_blank_ends(edited) != _without_blank_ends(text) else None,
        comment=comment,
        consent=consent,
        supersedes=answer.rating or None,
    )
    try:
        answer.rating = on_rating(question, answer, entered)
    except (BiloraError, OSError) as error:
        st.error(escape_markdown(f"Your rating could not be kept ({error}); nothing was lost on this page, try again."))
        return
    st.rerun()


def _without_blank_ends(text: str) -> str:
    """Return a text without line ends before it and blanks after it; its first line keeps its indentation."""
    return text.strip("\n").rstrip()
