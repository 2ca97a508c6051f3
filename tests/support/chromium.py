"""The browser of the page's tests, and what is skipped where there is none."""

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
"""Mark a module, so that nothing is made ready for tests that are skipped."""

if __name__ == "__main__":  # asked by the Makefile before it installs one
    raise SystemExit(not CHROMIUM)
