"""What the page draws while nothing can answer: why, and another try, by itself or by a button."""

from __future__ import annotations

import math
import time

import streamlit as st

from bilora.app.conversation import escape_markdown
from bilora.errors import BiloraError, Busy, Unreachable

FIRST_RETRY_S, LONGEST_RETRY_S = 2.0, 60.0
_FAILURES, _NEXT_TRY = "failures", "next_try"


def retry_delay_s(failures: int) -> float:
    """Return the delay before the next try, in seconds; it doubles with each failure in a row."""
    return float(min(FIRST_RETRY_S * 2.0 ** min(failures - 1, 30), LONGEST_RETRY_S))


def draw_fault(error: BiloraError) -> None:
    """Draw an error in place of the form; what is outside and did not answer is tried again after a while."""
    st.error(escape_markdown(str(error)))
    if not isinstance(error, Unreachable | Busy):
        st.button("Try again")
        return
    failures = st.session_state.get(_FAILURES, 0) + 1
    st.session_state[_FAILURES] = failures
    st.session_state[_NEXT_TRY] = time.monotonic() + retry_delay_s(failures)
    _draw_countdown()


def forget_failures() -> None:
    """Begin the next series of tries with the shortest wait."""
    st.session_state.pop(_FAILURES, None)
    st.session_state.pop(_NEXT_TRY, None)


@st.fragment(run_every=1.0)
def _draw_countdown() -> None:
    """Draw the seconds that are left; when there are none, or at a click, the whole page is drawn again."""
    left = math.ceil(st.session_state.get(_NEXT_TRY, 0.0) - time.monotonic())
    if left <= 0:
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button("Try again now", on_click=forget_failures)
        st.caption(f"The page tries again by itself in {left} s.")
