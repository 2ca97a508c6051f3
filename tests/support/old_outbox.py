"""An outbox of schema version 1, which recorded no destinations."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from bilora.records import Rating
from bilora.storage import dump_json

NOW = "2026-02-01T09:00:00+00:00"
VERSION_1 = """
CREATE TABLE ratings (
    event_id TEXT PRIMARY KEY, generation_id TEXT NOT NULL, day TEXT NOT NULL, consent INTEGER NOT NULL,
    standing INTEGER NOT NULL DEFAULT 1, batch INTEGER, exported INTEGER NOT NULL DEFAULT 0, body BLOB NOT NULL
);
CREATE UNIQUE INDEX one_stands ON ratings (generation_id) WHERE standing;
CREATE INDEX generations ON ratings (generation_id);
CREATE INDEX unclaimed ON ratings (day) WHERE standing AND consent AND batch IS NULL;
CREATE INDEX batches ON ratings (batch, exported) WHERE batch IS NOT NULL;
CREATE TABLE tombstones (event_id TEXT PRIMARY KEY, created_utc TEXT NOT NULL, exported INTEGER NOT NULL DEFAULT 0);
PRAGMA user_version = 1;
"""


def outbox_of_version_1(
    path: Path,
    *,
    exported: Sequence[Rating] = (),
    claimed: Sequence[Rating] = (),
    waiting: Sequence[Rating] = (),
    erased: Sequence[str] = (),
    unerased: Sequence[str] = (),
) -> None:
    """Write an outbox of schema version 1 with ratings and deletions in every state."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(VERSION_1)
        for batch, is_exported, ratings in ((1, 1, exported), (2, 0, claimed), (None, 0, waiting)):
            db.executemany(
                "INSERT INTO ratings VALUES (?, ?, ?, ?, 1, ?, ?, ?)",
                [
                    (
                        rating.event_id, rating.generation_id, rating.created_utc[:10], rating.consent, batch,
                        is_exported, dump_json(rating.model_dump(mode="json")).encode(),
                    )
                    for rating in ratings
                ],
            )  # fmt: skip
        db.executemany("INSERT INTO tombstones VALUES (?, ?, 1)", [(event, NOW) for event in erased])
        db.executemany("INSERT INTO tombstones VALUES (?, ?, 0)", [(event, NOW) for event in unerased])
    db.close()
