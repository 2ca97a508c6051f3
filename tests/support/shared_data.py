"""The real data that some tests read, from shared/data beside the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"


def shared_file(name: str) -> Path:
    """Return a file of the shared data; skip the test if it does not exist."""
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"{path.parent.name}/{path.name} is not in shared/data")
    return path
