"""The page in a real browser: asked, watched, stopped, rated; and no request leaves its server."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from checkout import environment_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or find_spec("playwright") is None,
        reason="Chromium or Playwright is not installed; `make test-browser` installs both",
    ),
]
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync")
WAIT_MS = 60_000


@pytest.fixture(scope="module")
def url(measured: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "hf_space/app.py", "--server.port", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=measured, env=environment_of(measured), **quiet) as process:  # type: ignore[call-overload]
        for _ in range(120):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://localhost:{port}/_stcore/health"):
                break
            time.sleep(0.25)
        yield f"http://localhost:{port}"
        process.terminate()


@pytest.fixture
def page(url: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        opened = browser.new_page()
        asked: list[str] = []
        opened.on("request", lambda request: asked.append(request.url))
        opened.goto(url)
        opened.get_by_role("button", name="Use the example").wait_for(timeout=WAIT_MS)
        yield opened
        browser.close()
    foreign = {urlsplit(one).netloc for one in asked if one.startswith(("http", "ws"))} - {urlsplit(url).netloc}
    assert not foreign


def ask_example(page: Any, who: str) -> None:
    page.get_by_role("button", name="Use the example").click()
    page.get_by_text(who, exact=True).click()
    page.get_by_role("button", name="Ask", exact=True).click()


def test_both_answers_come_and_a_rating_is_kept_once(page: Any, measured: Path) -> None:
    ask_example(page, "side by side")
    page.get_by_role("button", name="Rate").nth(1).wait_for(timeout=WAIT_MS)
    page.get_by_test_id("stFeedback").first.get_by_role("button").first.click()
    page.get_by_label("How it should read").first.fill("def sum_even(numbers):\n    return 0")
    page.get_by_text("may be stored in the project").first.click()
    page.get_by_role("button", name="Rate").first.click()
    page.get_by_text("your rating is kept").wait_for(timeout=WAIT_MS)
    status = subprocess.run(
        ["bilora", "feedback", "status"], cwd=measured, env=environment_of(measured),
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "1" in status, status


def test_it_fits_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    ask_example(page, "adapter")
    page.get_by_role("button", name="Rate").first.wait_for(timeout=WAIT_MS)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_keyboard_is_enough(page: Any) -> None:
    page.get_by_label("What should the code do?").focus()
    page.keyboard.type("add two numbers")
    page.keyboard.press("Control+Enter")
    page.get_by_role("button", name="Rate").first.wait_for(timeout=WAIT_MS)
