"""The Streamlit page: ask an adapter, watch it answer, compare it with the base, say what you think."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st

from bilora.app.conversation import Answer, Offer, Turn, answering, difference, plain, problem
from bilora.errors import BiloraError
from bilora.params import Generation
from bilora.tasks.task import Task

Rate = Callable[[Turn, Answer, dict[str, Any]], str]
"""Stores a rating durably and returns its id, or raises."""

ADAPTER, BASE, BOTH = "adapter", "base", "side by side"
WHY = ("wrong", "incomplete", "hard to read", "too long")
TITLE_CHARS = 80
STYLE = """<style>
.stMainBlockContainer {padding-top: 3rem; max-width: 80rem}
.stExpander summary code {font: inherit; color: inherit; background: none; padding: 0}
</style>"""
"""A question's title is set as code, so that Markdown draws nothing of it, and looks like plain text."""
CONSENT = (
    "My question, the answer and my rating may be stored in the project's collection of ratings and used to "
    "train and measure its adapters."
)


def show(offer: Offer, tasks: Mapping[str, Task], generation: Mapping[str, Generation], rate: Rate) -> None:
    """Draw the page once; Streamlit calls it again after every action.

    Args:
        offer: who answers.
        tasks: the tasks that the page offers, by name.
        generation: how each task's questions are answered.
        rate: where ratings go.
    """
    history: list[Turn] = st.session_state.setdefault("history", [])
    st.html(STYLE)
    st.title("BiLoRA", anchor=False)
    st.caption(f"{offer.base}, {offer.place}. Answers are made by small adapters; check them before you use them.")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        task = tasks[_choose_task(tasks)]
        st.button("Use the example", on_click=_take_example, args=(task,))
    available = [ADAPTER, BASE, BOTH] if task.name in offer.adapters else [BASE]
    if task.name not in offer.adapters:
        st.info("There is no adapter for this task here; the base answers alone. `make demo` trains one.")
    with st.form(f"ask-{task.name}", border=False):
        typed = st.text_area(
            "Your function" if task.apply else "What should the code do?",
            key=f"typed-{task.name}",
            height=180,
            placeholder=task.example,
        )
        who = st.radio("Answered by", available, horizontal=True)
        asked = st.form_submit_button("Ask", type="primary")
    if asked:
        if trouble := problem(typed):
            st.warning(trouble)
        else:
            turn = Turn(task.name, typed, task.ask(typed), generation[task.name])
            history.append(turn)
            _ask(offer, task, turn, [task.name, "base"] if who == BOTH else [task.name if who == ADAPTER else "base"])
            st.rerun()
    show_history(tasks, rate)


def show_fault(error: BiloraError) -> None:
    """Say in a sentence why nobody can be asked now."""
    st.error(plain(str(error)))


def show_history(tasks: Mapping[str, Task], rate: Rate) -> None:
    """Draw what was asked so far, the newest first; it needs no engine."""
    history: list[Turn] = st.session_state.get("history", [])
    for number, turn in reversed(list(enumerate(history))):
        if turn.task in tasks:
            _show_turn(tasks[turn.task], turn, rate, newest=number == len(history) - 1)


def _choose_task(tasks: Mapping[str, Task]) -> str:
    return str(
        st.segmented_control(
            "Task", list(tasks), format_func=lambda name: tasks[name].title, default=next(iter(tasks)), required=True
        )
        or next(iter(tasks))
    )


def _take_example(task: Task) -> None:
    st.session_state[f"typed-{task.name}"] = task.example


def _ask(offer: Offer, task: Task, turn: Turn, systems: list[str]) -> None:
    """Stream every answer in turn. A click on Stop ends this run of the script, which closes the stream."""
    st.button("Stop")
    for column, system in zip(st.columns(len(systems)), systems, strict=True):
        sha256 = offer.adapters.get(system, "") if system != "base" else ""
        answer = Answer(secrets.token_hex(13), system, sha256, offer.base_revision)
        turn.answers.append(answer)
        with column:
            st.subheader(system, anchor=False)
            box = st.empty()
            box.caption("thinking …")
            try:
                for text in answering(offer.engine, task, turn, answer):
                    box.text(text or "…")  # a highlighter would have to be loaded first, and run at every token
            except BiloraError as error:
                answer.fault = str(error)


def _show_turn(task: Task, turn: Turn, rate: Rate, *, newest: bool) -> None:
    title = " ".join(turn.typed.split()).replace("`", "'")
    title = title if len(title) <= TITLE_CHARS else f"{title[: TITLE_CHARS - 1].rstrip()}…"
    with st.expander(f"`{title}`", expanded=newest):
        st.code(turn.typed, language="python" if task.apply else None, wrap_lines=True)
        for column, answer in zip(st.columns(max(1, len(turn.answers))), turn.answers, strict=False):
            with column:
                _show_answer(task, turn, answer, rate)


def _show_answer(task: Task, turn: Turn, answer: Answer, rate: Rate) -> None:
    st.subheader(answer.system, anchor=False)
    if answer.fault:
        st.error(plain(answer.fault))
        return
    text = task.read_answer(answer.text, turn.prompt)
    st.code(text or "(no answer)", language=task.language, wrap_lines=True)
    result = text
    if task.apply and text:
        applied = task.apply(turn.typed, text)
        result = applied.text
        if applied.reason:
            st.info(plain(applied.reason))
        elif changes := difference(turn.typed, result):
            st.code(changes, language="diff", wrap_lines=True)
    st.caption(answer.facts)
    st.download_button("Download", result, f"{turn.task}.py", "text/x-python", key=f"download-{answer.id}")
    if not text:
        return
    if answer.rating:
        st.success(f"Thank you, your rating is kept as {answer.rating}. By this id it can be deleted.")
        with st.expander("Change your rating, or take your consent back"):
            _rating(turn, answer, text, rate)
    else:
        _rating(turn, answer, text, rate)


def _rating(turn: Turn, answer: Answer, text: str, rate: Rate) -> None:
    """Draw the form that rates an answer; once it is rated, the same form, as it was filled in, changes the rating."""
    with st.form(f"rate-{answer.id}"):
        thumb = st.feedback("thumbs", key=f"thumb-{answer.id}")
        with st.expander("Correct it, or say why"):
            edited = st.text_area("How it should read", text, key=f"edit-{answer.id}", height=160)
            why = st.multiselect("What is wrong with it?", WHY, key=f"why-{answer.id}")
            comment = st.text_input("Anything else", key=f"comment-{answer.id}", max_chars=2000)
        consent = st.checkbox(CONSENT, key=f"consent-{answer.id}")
        if not st.form_submit_button("Change the rating" if answer.rating else "Rate"):
            return
    if thumb is None:
        st.warning("Choose a thumb first.")
        return
    given = {
        "rating": "up" if thumb else "down",
        "tags": tuple(why),
        "edited": edited if _lines(edited) != _lines(text) else None,
        "comment": comment,
        "consent": consent,
        "supersedes": answer.rating or None,
    }
    try:
        answer.rating = rate(turn, answer, given)
    except (BiloraError, OSError) as error:
        st.error(plain(f"Your rating could not be kept ({error}); nothing was lost on this page, try again."))
        return
    st.rerun()


def _lines(text: str) -> str:
    """Return a text without blank lines and blanks around it; the first line's indentation counts in code."""
    return text.strip("\n").rstrip()
