"""A running page and a browser."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.checkouts import change_task, environment_of
from support.chromium import CHROMIUM
from support.page_process import started_page

QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync")
WAIT_MS = 180_000
LONG = 400
"""Tokens of an answer: enough of them to watch it grow and to stop it."""


@pytest.fixture(autouse=True)
def own_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamlit puts its script in the place of `__main__`, which a process that is started later would import."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture(scope="module")
def site(measured: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of this module's own, whose adapters are made and give long answers."""
    folder = tmp_path_factory.mktemp("site") / "checkout"
    shutil.copytree(measured, folder, symlinks=True)
    change_task(folder, "codegen", lambda task: task["generation"].update(max_new_tokens=LONG))
    return folder


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    """Where the page of that checkout answers."""
    with started_page(site, environment_of(site)) as (address, _):
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    """The page as a new visitor sees it; whatever the test does, it asks no server but its own."""
    opened = browser.new_page(viewport={"width": 1200, "height": 900})
    opened.set_default_timeout(WAIT_MS)
    requested: list[str] = []
    opened.on("request", lambda request: requested.append(request.url))
    opened.on("websocket", lambda socket: requested.append(socket.url))
    opened.goto(url)
    opened.get_by_role("button", name="Use the example").wait_for()
    yield opened
    opened.close()
    reached = {urlsplit(address).netloc for address in requested if address.startswith(("http", "ws"))}
    assert reached == {urlsplit(url).netloc}
