"""The shared real data that some tests read: in shared/data beside the repository, if at all."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"


def shared_file(name: str) -> Path:
    """Return a file of the shared data, or skip the test."""
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"the real data file {name} is not here")
    return path
