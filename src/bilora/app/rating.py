"""The form to rate an answer or to change its rating."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from bilora.app.conversation import Answer, RatingInput, UserQuestion, escape_markdown
from bilora.errors import BiloraError

OnRating = Callable[[UserQuestion, Answer, RatingInput], str]
"""Stores a rating durably and returns its event id."""

_REASONS = ("wrong", "incomplete", "hard to read", "too long")
_CONSENT = (
    "My question, the answer and my rating may be stored in the project's collection of ratings and used to "
    "train and measure its adapters."
)


def draw_rating(question: UserQuestion, answer: Answer, text: str, on_rating: OnRating) -> None:
    """Draw the rating form of an answer; if it is rated, also the rating's event id."""
    if not answer.rating:
        _draw_form(question, answer, text, on_rating)
        return
    st.success(f"Thank you, your rating is stored as {answer.rating}. It can be deleted by this id.")
    with st.expander("Change your rating, or withdraw your consent"):
        _draw_form(question, answer, text, on_rating)


def _draw_form(question: UserQuestion, answer: Answer, text: str, on_rating: OnRating) -> None:
    """Draw the form with the values that were entered before."""
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
        st.error(escape_markdown(f"Your rating could not be stored ({error}). Your input is still here: try again."))
        return
    st.rerun()


def _without_blank_ends(text: str) -> str:
    """Return a text without leading line ends and trailing white space; the first line keeps its indentation."""
    return text.strip("\n").rstrip()
