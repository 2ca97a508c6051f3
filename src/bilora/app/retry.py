"""The page without a backend: the error, and a retry by timer or button."""

from __future__ import annotations

import math
import time

import streamlit as st

from bilora.app.conversation import escape_markdown
from bilora.errors import BiloraError, Busy, Unreachable

FIRST_RETRY_S, LONGEST_RETRY_S = 2.0, 60.0
_FAILURES, _NEXT_TRY = "failures", "next_try"


def retry_delay_s(failures: int) -> float:
    """Return the delay before the next try; it doubles with each consecutive failure."""
    return float(min(FIRST_RETRY_S * 2.0 ** min(failures - 1, 30), LONGEST_RETRY_S))


def draw_fault(error: BiloraError) -> None:
    """Draw an error instead of the form; if a remote service did not answer, start the retry timer."""
    st.error(escape_markdown(str(error)))
    if not isinstance(error, Unreachable | Busy):
        st.button("Try again")
        return
    failures = st.session_state.get(_FAILURES, 0) + 1
    st.session_state[_FAILURES] = failures
    st.session_state[_NEXT_TRY] = time.monotonic() + retry_delay_s(failures)
    _draw_countdown()


def forget_failures() -> None:
    """Reset the retry delay."""
    st.session_state.pop(_FAILURES, None)
    st.session_state.pop(_NEXT_TRY, None)


@st.fragment(run_every=1.0)
def _draw_countdown() -> None:
    """Draw the seconds until the next try; at 0 or a click, draw the whole page again."""
    seconds = math.ceil(st.session_state.get(_NEXT_TRY, 0.0) - time.monotonic())
    if seconds <= 0:
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button("Try again now", on_click=forget_failures)
        st.caption(f"The page tries again in {seconds} s.")
