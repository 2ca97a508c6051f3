"""The tables of an outbox, and the migration from version 1 to 2.

`deliveries` records the ratings that a destination received, or may have received from an interrupted export;
`erasures` records the deletions that were written to it. A deletion is outstanding at every destination that received
the rating and has not erased it. If the outbox does not know the rating (`known` is 0: the disk was wiped, or the
deletion is older than version 2), it is outstanding at every destination.
"""

from __future__ import annotations

import sqlite3

VERSION = 2

RATINGS = """
CREATE TABLE ratings (
    event_id TEXT PRIMARY KEY,
    generation_id TEXT NOT NULL,
    day TEXT NOT NULL,
    consent INTEGER NOT NULL,
    standing INTEGER NOT NULL DEFAULT 1,
    body BLOB NOT NULL
);
CREATE UNIQUE INDEX one_stands ON ratings (generation_id) WHERE standing;
CREATE INDEX generations ON ratings (generation_id);
CREATE TABLE tombstones (
    event_id TEXT PRIMARY KEY,
    created_utc TEXT NOT NULL,
    generation_id TEXT,
    known INTEGER NOT NULL DEFAULT 0
);
"""

DESTINATIONS = """
CREATE INDEX exportable ON ratings (day, event_id) WHERE standing AND consent;
CREATE TABLE destinations (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);
CREATE TABLE deliveries (
    destination INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    batch INTEGER NOT NULL,
    delivered INTEGER NOT NULL DEFAULT 0,
    assumed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (destination, event_id)
) WITHOUT ROWID;
CREATE INDEX batches ON deliveries (destination, batch, delivered);
CREATE TABLE erasures (
    destination INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    PRIMARY KEY (destination, event_id)
) WITHOUT ROWID;
CREATE VIEW outstanding AS
    SELECT d.id AS destination, t.event_id, t.generation_id FROM tombstones t, destinations d
    WHERE NOT EXISTS (SELECT 1 FROM erasures e WHERE e.destination = d.id AND e.event_id = t.event_id)
    AND (NOT t.known OR EXISTS (SELECT 1 FROM deliveries v WHERE v.destination = d.id AND v.event_id = t.event_id));
"""

FROM_VERSION_1 = """
DROP INDEX unclaimed;
DROP INDEX batches;
ALTER TABLE tombstones ADD COLUMN generation_id TEXT;
ALTER TABLE tombstones ADD COLUMN known INTEGER NOT NULL DEFAULT 0;
"""

MOVE_TO_DESTINATIONS = """
INSERT INTO deliveries (destination, event_id, batch, delivered, assumed)
    SELECT d.id, r.event_id, r.batch, r.exported, 1 FROM ratings r, destinations d WHERE r.batch IS NOT NULL;
INSERT INTO erasures (destination, event_id)
    SELECT d.id, t.event_id FROM tombstones t, destinations d WHERE t.exported;
ALTER TABLE ratings DROP COLUMN batch;
ALTER TABLE ratings DROP COLUMN exported;
ALTER TABLE tombstones DROP COLUMN exported;
"""


def create(db: sqlite3.Connection) -> None:
    """Create the tables in an empty file."""
    _run(db, RATINGS + DESTINATIONS)


def migrate(db: sqlite3.Connection, default_destination: str) -> None:
    """Migrate a file of version 1 in one transaction.

    Version 1 did not record its destination. The migration assumes the default destination and marks its deliveries as
    `assumed`.
    """
    with_destination = (
        "INSERT INTO destinations (name) SELECT ? WHERE EXISTS (SELECT 1 FROM ratings WHERE batch IS NOT NULL) "
        "OR EXISTS (SELECT 1 FROM tombstones)"
    )
    _run(db, FROM_VERSION_1 + DESTINATIONS, (with_destination, (default_destination,)), MOVE_TO_DESTINATIONS)


def _run(db: sqlite3.Connection, *steps: str | tuple[str, tuple[str, ...]]) -> None:
    """Execute the statements and set the version, in one transaction."""
    db.execute("BEGIN IMMEDIATE")
    try:
        for step in steps:
            if isinstance(step, tuple):
                db.execute(*step)
            else:
                for statement in step.split(";\n"):
                    db.execute(statement)
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
