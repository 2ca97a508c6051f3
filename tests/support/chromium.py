"""The browser of the page's tests, and the mark that skips them without one."""

from __future__ import annotations

import shutil
from importlib.util import find_spec

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BROWSER = (
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None or find_spec("playwright") is None,
        reason="Chromium or Playwright is not installed; `make test-browser` installs both",
    ),
)
"""For `pytestmark`: fixtures of a marked module do not run for skipped tests."""

if __name__ == "__main__":  # `make test-browser` installs Chromium if this exits with 1
    raise SystemExit(not CHROMIUM)
