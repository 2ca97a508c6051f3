"""A page without a backend reports it and retries with growing delays."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from bilora.app.retry import LONGEST_RETRY_S, retry_delay_s


def faulty(kind: str) -> None:
    from bilora.app.page import draw_unavailable
    from bilora.errors import BadData, Unreachable
    from bilora.tasks import load_task

    error = {"unreachable": Unreachable("No <b>server</b> answers."), "bad": BadData("bundle", "is not a bundle.")}
    draw_unavailable({"codegen": load_task("codegen")}, lambda question, answer, entered: "", error[kind])


def drawn(kind: str) -> AppTest:
    page = AppTest.from_function(faulty, args=(kind,), default_timeout=60).run()
    assert not page.exception
    return page


def waits(page: AppTest) -> list[str]:
    return [element.value for element in page.caption if "tries again" in element.value]


def test_an_unreachable_service_is_retried_with_growing_delays() -> None:
    page = drawn("unreachable")
    assert page.error[0].value == r"No \<b\>server\</b\> answers." and "Write code" in page.markdown[0].value
    assert waits(page) == ["The page tries again in 2 s."]
    assert [waits(page.run()) for _ in range(3)] == [[f"The page tries again in {s} s."] for s in (4, 8, 16)]
    page.button[0].click().run()
    assert waits(page) == ["The page tries again in 2 s."]


def test_a_permanent_fault_is_retried_only_by_the_button() -> None:
    page = drawn("bad")
    assert "is not a bundle" in page.error[0].value and not waits(page)
    assert [element.label for element in page.button] == ["Try again"]


@pytest.mark.parametrize(("failures", "seconds"), [(1, 2), (2, 4), (5, 32), (6, LONGEST_RETRY_S), (9999, 60)])
def test_each_delay_doubles_up_to_a_minute(failures: int, seconds: float) -> None:
    assert retry_delay_s(failures) == seconds
