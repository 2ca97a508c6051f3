"""The browser of the page's tests, and what is skipped where there is none."""

from __future__ import annotations

import shutil
from importlib.util import find_spec

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NEEDED = pytest.mark.skipif(
    CHROMIUM is None or find_spec("playwright") is None,
    reason="Chromium or Playwright is not installed; `make test-browser` installs both",
)
"""Marks a module, so that nothing is made ready for tests that are skipped."""
