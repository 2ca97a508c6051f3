"""Where the real data lies that some tests read: beside the repository, or nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"


def real_file(name: str) -> Path:
    """Return a file of the shared data, or skip the test."""
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"the real data file {name} is not here")
    return path
