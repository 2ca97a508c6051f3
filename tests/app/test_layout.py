"""Layout and waiting of the page in a browser, with a fake engine instead of a model."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.checkouts import ROOT, environment_of
from support.chromium import BROWSER
from support.fake_openai_server import Server
from support.page_process import started_page
from support.processes import descendants, orphans
from support.scripted_page import CPU_S, ENDLESS

pytestmark = [pytest.mark.slow, *BROWSER]
SCRIPTED_PAGE = ("-m", "streamlit", "run", "tests/support/scripted_page.py", "--server.port")
LOOP = f"Write a function to {ENDLESS}.\nSignature: def sum_even(numbers):\nMust pass: assert sum_even([1]) == 0"
CODE = "What should the code do?"


def environment() -> dict[str, str]:
    variables = environment_of(ROOT)
    return {**variables, "PYTHONPATH": os.pathsep.join([variables["PYTHONPATH"], str(ROOT / "tests")])}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of the scripted page."""
    with started_page(ROOT, environment(), SCRIPTED_PAGE) as (address, _):
        yield address


@pytest.fixture
def phone(page: Any) -> Any:
    """The page on a phone whose browser takes a part of the screen for its bars."""
    page.set_viewport_size({"width": 390, "height": 664})
    return page


def button(page: Any, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


def ask_the_example(page: Any, who: str = "adapter") -> None:
    button(page, "Use the example").click()
    page.wait_for_function("document.querySelector('textarea').value")
    page.get_by_text(who, exact=True).first.click()
    button(page, "Ask").click()
    button(page, "Rate").first.wait_for()


def test_the_answer_and_its_verdict_are_on_a_phone_s_first_screen(phone: Any) -> None:
    ask_the_example(phone)
    verdict = phone.get_by_text("Passes your assert.")
    verdict.wait_for()
    code = phone.get_by_test_id("stCode").first
    for seen in (code, verdict):
        box = seen.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 664, box
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_question_is_on_the_page_once(phone: Any) -> None:
    ask_the_example(phone)
    assert "even numbers" in phone.get_by_label(CODE).input_value()
    assert "even numbers" not in phone.inner_text("body")


def test_each_system_s_answer_is_run_with_the_typed_assert(page: Any) -> None:
    ask_the_example(page, "side by side")
    page.get_by_text("Passes your assert.").wait_for()
    page.get_by_text("Fails your assert: test 1: assert sum_even([1, 2, 4]) == 6 gave 7, not 6").wait_for()


def test_code_is_typed_and_shown_in_a_monospaced_font(page: Any) -> None:
    ask_the_example(page)
    page.get_by_text("Correct it, or say why").click()
    edited = page.get_by_label("How it should read")
    edited.wait_for()
    code = page.get_by_test_id("stCode").first.locator("code")
    for place in (page.get_by_label(CODE), edited, code):
        assert "monospace" in place.evaluate("element => getComputedStyle(element).fontFamily")
    assert page.evaluate("document.fonts.check('14px \"Source Code Pro\"')")


def test_an_endless_answer_is_timed_out_and_the_page_can_be_used_meanwhile(page: Any) -> None:
    page.get_by_label(CODE).fill(LOOP)
    button(page, "Ask").click()
    page.get_by_text("Running it in the sandbox").wait_for()
    page.wait_for_timeout(500)
    assert page.get_by_role("heading", level=3).count() == 1 and button(page, "Stop").count() == 0
    began = time.monotonic()
    page.get_by_role("radio", name="Explain code").click()
    page.get_by_label("Your function").wait_for()
    assert time.monotonic() - began < CPU_S / 2
    page.get_by_text("Timed out with your assert").wait_for()
    assert time.monotonic() - began < 6 * CPU_S  # a machine that is busy tries it twice


def test_prose_for_a_function_and_back_is_one_sentence(page: Any) -> None:
    page.get_by_role("radio", name="Explain code").click()
    page.get_by_label("Your function").fill("What does this do?")
    button(page, "Ask").click()
    page.get_by_text("This text contains no complete Python function").wait_for()
    assert page.get_by_test_id("stCode").count() == 0


def test_sigterm_ends_the_page_and_what_it_runs(browser: Any) -> None:
    before = orphans()
    with started_page(ROOT, environment(), SCRIPTED_PAGE) as (address, process):
        page = browser.new_page()
        page.goto(address)
        page.get_by_label(CODE).fill(LOOP)
        button(page, "Ask").click()
        page.get_by_text("Running it in the sandbox").wait_for()
        running = descendants(process.pid)
        assert running
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=CPU_S) == 0
        page.close()
    deadline = time.monotonic() + 1
    while orphans() - before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not orphans() - before


def test_an_unreachable_endpoint_is_explained_and_the_page_recovers(browser: Any, server: Server) -> None:
    server.models, server.models_response = ("base", "codegen"), (503, {}, {"error": {"message": "starting"}})
    with started_page(ROOT, {**environment(), "BILORA_ENDPOINT": server.url}) as (address, _):
        page = browser.new_page()
        page.goto(address)
        expected_message = page.get_by_text(f"Endpoint '{server.url}' gave no usable answer: HTTP 503")
        expected_message.wait_for()
        page.get_by_text("Write code", exact=True).wait_for()
        page.get_by_text("The page tries again in").wait_for()
        tried, deadline = len(server.paths), time.monotonic() + 60
        while len(server.paths) < tried + 2:  # nobody touches it
            assert time.monotonic() < deadline
            page.wait_for_timeout(200)
        server.models_response = None
        button(page, "Try again now").click()
        page.get_by_label(CODE).wait_for()
        assert expected_message.count() == 0
        page.close()
