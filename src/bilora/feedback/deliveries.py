"""The record of what was delivered to each destination, erased there, and is still to do.

A delivery's `batch` is the rating's shard at the destination. It never changes, so that an export repeats an
interrupted one with the same bytes. A destination has one name (`shards.Target.name`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from bilora.feedback.database import Database
from bilora.feedback.destination_names import UNRECORDED
from bilora.records import Rating, Tombstone

SHARD_RATINGS = 1000
"""The maximum of ratings per shard; at some kilobytes each, a shard stays below the hub's LFS threshold."""

CLAIMED = "FROM deliveries JOIN ratings USING (event_id) WHERE destination = ? AND NOT delivered"
UNCLAIMED = (
    "FROM ratings r WHERE standing AND consent AND NOT EXISTS "
    "(SELECT 1 FROM deliveries v WHERE v.destination = ? AND v.event_id = r.event_id)"
)


@dataclass(frozen=True)
class Destination:
    """A destination of exported ratings, with its progress.

    Attributes:
        name: a folder, or a dataset on the hub.
        delivered: the number of valid ratings that were delivered.
        waiting: the number of valid ratings with consent that were not delivered yet.
        assumed: the number of deliveries by version 1, which did not record their destination.
        outstanding: the deleted or withdrawn ratings that may be there and are not erased yet.
    """

    name: str
    delivered: int
    waiting: int
    assumed: int
    outstanding: tuple[str, ...]


class Deliveries(Database):
    """The record of deliveries and erasures per destination."""

    def claim(self, destination: str, limit: int = SHARD_RATINGS) -> list[Rating]:
        """Return the ratings of a destination's next shard, of one day, sorted by event id; [] if none is waiting.

        Until `mark_exported`, every call returns the same ratings, without those that were deleted since.
        """
        if not self._has_waiting(destination):  # usually, and without the write lock
            return []
        with self._transaction() as db:
            # 1) continue the oldest batch that was not delivered
            id_ = self._add_destination(db, destination)
            (batch,) = db.execute(f"SELECT min(batch) {CLAIMED}", (id_,)).fetchone()
            if batch is None:
                # 2) otherwise make a new batch from the oldest day
                (day,) = db.execute(f"SELECT min(day) {UNCLAIMED}", (id_,)).fetchone()
                if day is None:
                    return []
                (last,) = db.execute("SELECT max(batch) FROM deliveries WHERE destination = ?", (id_,)).fetchone()
                batch = (last or 0) + 1
                db.execute(
                    "INSERT INTO deliveries (destination, event_id, batch) "
                    f"SELECT ?, event_id, ? {UNCLAIMED} AND day = ? ORDER BY event_id LIMIT ?",
                    (id_, batch, id_, day, limit),
                )
            # 3) read the ratings of the batch
            rows = db.execute(
                "SELECT body FROM deliveries JOIN ratings USING (event_id) "
                "WHERE destination = ? AND batch = ? ORDER BY event_id",
                (id_, batch),
            ).fetchall()
        return [parse_rating(body) for (body,) in rows]

    def is_behind(self, destination: str) -> bool:
        """Return whether ratings or deletions are still to be exported to a destination."""
        return bool(self.unerased(destination)) or self._has_waiting(destination)

    def _has_waiting(self, destination: str) -> bool:
        with self._exclusive_access():
            id_ = self._destination_id(self._db, destination)
            query = f"SELECT EXISTS (SELECT 1 {CLAIMED}) OR EXISTS (SELECT 1 {UNCLAIMED})"
            return bool(self._db.execute(query, (id_, id_)).fetchone()[0])

    def mark_exported(self, destination: str, event_ids: Sequence[str]) -> None:
        """Record that these ratings are durably in a shard of the destination."""
        with self._transaction() as db:
            id_ = self._add_destination(db, destination)
            db.executemany(
                "UPDATE deliveries SET delivered = 1 WHERE destination = ? AND event_id = ?",
                [(id_, event) for event in event_ids],
            )

    def unerased(self, destination: str) -> list[Tombstone]:
        """Return the deletions that were not written to a destination yet, sorted.

        That includes deletions of ratings that never were there: another machine may add a copy later.
        """
        with self._exclusive_access():
            id_ = self._destination_id(self._db, destination)
        erased = "SELECT 1 FROM erasures e WHERE e.destination = ? AND e.event_id = tombstones.event_id"
        return self._tombstones(f"NOT EXISTS ({erased})", (id_,))

    def mark_erased(self, destination: str, event_ids: Sequence[str]) -> None:
        """Record that these deletions are written to a destination, and the ratings are erased there."""
        with self._transaction() as db:
            id_ = self._add_destination(db, destination)
            db.executemany(
                "INSERT OR IGNORE INTO erasures (destination, event_id) VALUES (?, ?)",
                [(id_, event) for event in event_ids],
            )

    def destinations(self) -> list[Destination]:
        """Return all destinations with their progress, sorted by name."""
        with self._exclusive_access():
            rows = self._db.execute(
                "SELECT id, name, count(v.delivered AND r.standing OR NULL), count(v.assumed AND v.delivered OR NULL) "
                "FROM destinations d LEFT JOIN deliveries v ON v.destination = d.id LEFT JOIN ratings r "
                "ON r.event_id = v.event_id AND r.standing GROUP BY id"
            ).fetchall()
            (exportable,) = self._db.execute("SELECT count(*) FROM ratings WHERE standing AND consent").fetchone()
            outstanding: dict[int, list[str]] = {}
            for id_, event in self._db.execute("SELECT destination, event_id FROM outstanding ORDER BY event_id"):
                outstanding.setdefault(id_, []).append(event)
        destinations = [
            Destination(
                name=self._from_stored(name),
                delivered=delivered,
                waiting=0 if name == UNRECORDED else exportable - delivered,
                assumed=assumed,
                outstanding=tuple(outstanding.get(id_, ())),
            )
            for id_, name, delivered, assumed in rows
        ]
        return sorted(destinations, key=lambda destination: destination.name)

    def holders(self, event_id: str) -> list[str]:
        """Return the destinations that may still have a deleted rating or an earlier version of it, sorted."""
        with self._exclusive_access():
            rows = self._db.execute(
                "SELECT DISTINCT name FROM outstanding JOIN destinations ON id = destination WHERE event_id = :event "
                "OR generation_id = (SELECT generation_id FROM tombstones WHERE event_id = :event)",
                {"event": event_id},
            ).fetchall()
        return sorted(self._from_stored(name) for (name,) in rows)

    def received(self, destination: str) -> tuple[int, int]:
        """Return the number of ratings delivered to a destination, also deleted ones, and of those that are assumed."""
        with self._exclusive_access():
            row = self._db.execute(
                "SELECT count(*), coalesce(sum(assumed), 0) FROM deliveries WHERE delivered AND destination = ?",
                (self._destination_id(self._db, destination),),
            ).fetchone()
        return int(row[0]), int(row[1])

    def mark_unrecorded(self, destination: str) -> None:
        """Record that version 1 did not export to this destination but to an unknown one."""
        with self._transaction() as db:
            db.execute("DELETE FROM erasures WHERE destination = ?", (self._destination_id(db, destination),))
            db.execute("UPDATE destinations SET name = ? WHERE name = ?", (UNRECORDED, self._to_stored(destination)))

    def forget(self, destination: str) -> bool:
        """Delete the record of a destination that does not exist any more; return whether there was one."""
        with self._transaction() as db:
            id_ = self._destination_id(db, destination)
            for table, column in (("deliveries", "destination"), ("erasures", "destination"), ("destinations", "id")):
                db.execute(f"DELETE FROM {table} WHERE {column} = ?", (id_,))
        return id_ is not None

    def _tombstones(self, condition: str, values: tuple[int | None, ...]) -> list[Tombstone]:
        with self._exclusive_access():
            rows = self._db.execute(
                f"SELECT event_id, created_utc FROM tombstones WHERE {condition} ORDER BY event_id", values
            ).fetchall()
        return [Tombstone(event_id=event, created_utc=created) for event, created in rows]

    def _destination_id(self, db: sqlite3.Connection, destination: str) -> int | None:
        row = db.execute("SELECT id FROM destinations WHERE name = ?", (self._to_stored(destination),)).fetchone()
        return int(row[0]) if row else None

    def _add_destination(self, db: sqlite3.Connection, destination: str) -> int:
        db.execute("INSERT OR IGNORE INTO destinations (name) VALUES (?)", (self._to_stored(destination),))
        id_ = self._destination_id(db, destination)
        assert id_ is not None
        return id_


def parse_rating(body: bytes) -> Rating:
    """Return a rating from its stored bytes."""
    return Rating.model_validate(json.loads(body))
