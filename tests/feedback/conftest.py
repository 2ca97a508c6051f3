"""Ratings to store, export and train on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bilora.feedback.events import new_event_id
from bilora.feedback.outbox import Outbox
from bilora.feedback.shards import FolderTarget
from bilora.records import Rating

ADAPTER = "a" * 64
NOW = "2026-02-01T09:00:00+00:00"


def build(number: int, **changes: Any) -> Rating:
    fields: dict[str, Any] = {
        "event_id": new_event_id(1_770_000_000_000 + number),
        "generation_id": f"g{number}",
        "session": f"s{number}",
        "task": "codegen",
        "prompt": f"Write function {number}.",
        "completion": "```python\ndef f():\n    return 1\n```",
        "adapter_sha256": ADAPTER,
        "base_revision": "b" * 40,
        "decoding": {"temperature": 0.5, "seed": 7},
        "rating": "up",
        "consent": True,
        "app_version": "0.1.0",
        "created_utc": "2026-01-31T12:00:00+00:00",
    }
    return Rating(**(fields | changes))


@pytest.fixture
def make() -> Callable[..., Rating]:
    """Make ratings, each later than the one before and of another generation."""
    numbers = itertools.count()
    return lambda **changes: build(next(numbers), **changes)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.sqlite3") as opened:
        yield opened


@pytest.fixture
def target(tmp_path: Path) -> FolderTarget:
    return FolderTarget(tmp_path / "shards")
