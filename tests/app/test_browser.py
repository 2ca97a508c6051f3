"""The page in a real browser: questions, streaming, stop and ratings; mouse and keyboard, wide and narrow."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.checkouts import change_task, shell_in
from support.chromium import BROWSER

from bilora.app.conversation import MAX_QUESTION_CHARS

pytestmark = [pytest.mark.slow, *BROWSER]
CODE, FUNCTION = "What should the code do?", "Your function"
SIGNATURE = "\n\nSignature: def add(numbers):"
"""Without one, the small adapter of these tests says nothing."""
HOSTILE = "<img src=x onerror='window.hit=1'><script>window.hit=1</script> `</code>` [a](javascript:window.hit=1) $x$"
SENTENCE = "Return the value of the given object."
"""The one docstring that an adapter trained for seconds can learn."""
FOCUSED = """(e => e.getAttribute('aria-label') || e.labels?.[0]?.innerText || e.innerText || '')
(document.activeElement)"""
PICTURES = os.environ.get("BILORA_PICTURES")
"""A folder for pictures of the page, to be looked at."""


@pytest.fixture(scope="module")
def site(site: Path) -> Path:
    """The checkout with a docstring adapter that says a sentence: the smoke profile's few steps teach none."""
    change_task(
        site, "docstring", lambda task: task["training"]["phases"][0].update(steps=60, evaluate_every=60, batch_size=8)
    )
    rows = site / "data" / "splits" / "docstring" / "train.jsonl"
    samples = [json.loads(line) | {"target": SENTENCE} for line in rows.read_text(encoding="utf-8").splitlines()]
    rows.write_text("".join(f"{json.dumps(sample)}\n" for sample in samples), encoding="utf-8")
    shell_in(site)("bilora", "train", "docstring")
    return site


def picture(page: Any, name: str) -> None:
    if PICTURES:
        until(lambda: page.get_by_test_id("stSkeleton").count() == 0)  # stands for what the browser still loads
        seen = page.viewport_size
        page.set_viewport_size(seen | {"height": 2000})  # the page scrolls inside itself
        page.screenshot(path=Path(PICTURES) / f"{name}.png")
        page.set_viewport_size(seen)


def button(page: Any, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


def take_example(page: Any) -> None:
    from playwright.sync_api import expect

    button(page, "Use the example").click()
    expect(page.get_by_role("textbox").first).not_to_have_value("")


def ask(page: Any, text: str, who: str = "adapter") -> None:
    page.get_by_label(CODE).fill(text)
    page.get_by_text(who, exact=True).click()
    button(page, "Ask").click()


def answered(page: Any, count: int = 1) -> None:
    button(page, "Rate").nth(count - 1).wait_for()


def shows(what: Any, count: int) -> None:
    """Wait until the page shows so many of them: it is drawn piece by piece."""
    until(lambda: what.count() == count)


def kept(site: Path) -> list[bytes]:
    """What the page's outbox holds, oldest first."""
    path = site / "data" / "feedback" / "outbox.sqlite3"
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(path)) as outbox:
        return [body for (body,) in outbox.execute("select body from ratings order by event_id")]


def until(true: Callable[[], bool], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_both_systems_stream_their_answers(page: Any) -> None:
    take_example(page)
    page.get_by_text("side by side", exact=True).click()
    button(page, "Ask").click()
    button(page, "Stop").wait_for()
    seen: list[int] = []
    until(lambda: (seen.append(len(page.inner_text("body"))), button(page, "Rate").count() == 2)[1])
    grown = [after for before, after in pairwise(seen) if after > before]
    assert len(grown) >= 5, seen
    assert [element.inner_text() for element in page.get_by_role("heading", level=3).all()] == ["codegen", "base"]
    assert page.get_by_text("tokens/s").count() == 2
    assert page.get_by_text("adapter ").filter(has_text="tokens/s").count() == 1
    picture(page, "compared")


def test_stop_keeps_the_partial_answer_and_the_page_stays_usable(page: Any) -> None:
    take_example(page)
    page.get_by_text("base", exact=True).click()  # its answer is the longest: the adapter may end its own at once
    button(page, "Ask").click()
    until(lambda: page.get_by_test_id("stText").count() > 0)
    button(page, "Stop").click(force=True)  # not waiting until the page stands still: then it would be over
    page.get_by_text("stopped by you").wait_for()
    assert page.get_by_test_id("stCode").last.inner_text().strip()
    ask(page, f"Add two numbers.{SIGNATURE}")
    until(lambda: page.get_by_test_id("stExpander").filter(has_text="sum_even").count() > 0)
    answered(page)
    shows(page.get_by_text("stopped by you"), 1)


def test_an_edited_answer_is_rated_once_despite_several_clicks(page: Any, site: Path) -> None:
    before = len(kept(site))
    ask(page, f"Add the numbers of a list.{SIGNATURE}", "side by side")
    answered(page, 2)
    form = page.get_by_test_id("stForm").nth(1)  # the one before it asks
    form.get_by_role("radio", name="Thumbs down").click()
    form.get_by_text("Correct it, or say why").click()
    form.get_by_label("How it should read").fill("def total(numbers):\n    return sum(numbers)")
    form.get_by_text("may be stored in the project").click()
    picture(page, "rating")
    button(form, "Rate").dblclick()
    page.get_by_text("your rating is stored").wait_for()
    shows(button(page, "Rate"), 1)
    page.wait_for_timeout(500)
    rows = kept(site)
    assert len(rows) == before + 1 and b"return sum(numbers)" in rows[-1]
    picture(page, "rated")


def test_a_function_is_explained_and_the_change_is_shown(page: Any) -> None:
    page.get_by_role("radio", name="Explain code").click()
    page.get_by_label(FUNCTION).wait_for()
    take_example(page)
    button(page, "Ask").click()
    page.get_by_test_id("stCode").filter(has_text="+++ after").wait_for()
    picture(page, "explained")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x" * 100_000, f"the limit is {MAX_QUESTION_CHARS:,}"),
        ("\0\1\2", "contains binary data"),
        ("", "Type something"),
    ],
    ids=["100,000 characters", "binary", "nothing"],
)
def test_an_invalid_question_is_refused_in_one_sentence_and_the_history_stays(
    page: Any, text: str, message: str
) -> None:
    ask(page, f"Add two numbers.{SIGNATURE}")
    answered(page)
    ask(page, text)
    page.get_by_text(message).wait_for()
    answered(page)
    shows(button(page, "Rate"), 1)
    assert page.get_by_test_id("stException").count() == 0


def test_typed_markup_is_displayed_and_never_executed(page: Any) -> None:
    ask(page, HOSTILE)
    answered(page)
    page.get_by_text("Correct it, or say why").click()
    page.get_by_label("How it should read").fill(HOSTILE)
    page.get_by_label("Anything else").fill(HOSTILE)
    page.get_by_role("radio", name="Thumbs up").click()
    button(page, "Rate").click()
    page.get_by_text("your rating is stored").wait_for()
    assert page.evaluate("window.hit") is None
    assert page.locator("img[src='x'], a[href^='javascript']").count() == 0
    ask(page, f"Add two numbers.{SIGNATURE}")
    answered(page)
    page.locator("summary").filter(has_text="window.hit").click()
    until(lambda: HOSTILE in [element.inner_text().strip() for element in page.get_by_test_id("stCode").all()])
    assert page.evaluate("window.hit") is None and page.locator("img[src='x'], a[href^='javascript']").count() == 0


def tab_to(page: Any, wanted: str) -> None:
    """Press Tab until what has the focus is called `wanted`."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(FOCUSED).strip() == wanted:
            return
    raise AssertionError(f"{wanted!r} cannot be reached with Tab")


def test_the_page_is_usable_with_the_keyboard(page: Any, site: Path) -> None:
    before = len(kept(site))
    tab_to(page, CODE)
    page.keyboard.type(f"add two numbers{SIGNATURE}")
    page.keyboard.press("Control+Enter")
    answered(page)
    tab_to(page, "Thumbs up")
    page.keyboard.press("Enter")
    tab_to(page, "Rate")
    page.keyboard.press("Enter")
    page.get_by_text("your rating is stored").wait_for()
    assert len(kept(site)) == before + 1


def test_it_fits_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    take_example(page)
    page.get_by_text("side by side", exact=True).click()
    button(page, "Ask").click()
    answered(page, 2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for element in page.get_by_test_id("stCode").all():
        assert element.bounding_box()["width"] <= 390
    picture(page, "phone")
