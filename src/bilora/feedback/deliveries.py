"""What each destination got and erased, and what is still to be done there.

A delivery's `batch` is the shard of its destination that the rating goes to, and never changes, so that an
export that died is repeated with the same bytes. Destinations are known by their one name (`shards.Target.name`).
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
"""Most ratings per shard; a rating is some kilobytes, so a shard stays below the hub's LFS threshold."""

CLAIMED = "FROM deliveries JOIN ratings USING (event_id) WHERE destination = ? AND NOT delivered"
UNCLAIMED = (
    "FROM ratings r WHERE standing AND consent AND NOT EXISTS "
    "(SELECT 1 FROM deliveries v WHERE v.destination = ? AND v.event_id = r.event_id)"
)


@dataclass(frozen=True)
class Destination:
    """A place that ratings were exported to: how many it got, and what is still to be done there.

    Args:
        name: a folder, or a dataset on the hub.
        delivered: ratings that stand, and that it got.
        waiting: ratings that stand, with consent, that it did not get yet.
        assumed: delivered ratings of which only version 1 knew where they went, so that this is a guess.
        outstanding: deleted or withdrawn ratings that it got, or may have got, and has not erased.
    """

    name: str
    delivered: int
    waiting: int
    assumed: int
    outstanding: tuple[str, ...]


class Deliveries(Database):
    """The record of deliveries and erasures per destination."""

    def claim(self, destination: str, limit: int = SHARD_RATINGS) -> list[Rating]:
        """Return the ratings of a destination's next shard, of one day and sorted by event; [] if none waits.

        What is claimed stays together: until `mark_exported`, the same ratings are returned again,
        to every caller, less those that were deleted since.
        """
        if not self._has_waiting(destination):
            return []  # most of the time, and without the write lock
        with self._writing() as db:
            place = self._add_destination(db, destination)
            (batch,) = db.execute(f"SELECT min(batch) {CLAIMED}", (place,)).fetchone()
            if batch is None:
                (day,) = db.execute(f"SELECT min(day) {UNCLAIMED}", (place,)).fetchone()
                if day is None:
                    return []
                (last,) = db.execute("SELECT max(batch) FROM deliveries WHERE destination = ?", (place,)).fetchone()
                batch = (last or 0) + 1
                db.execute(
                    "INSERT INTO deliveries (destination, event_id, batch) "
                    f"SELECT ?, event_id, ? {UNCLAIMED} AND day = ? ORDER BY event_id LIMIT ?",
                    (place, batch, place, day, limit),
                )
            found = db.execute(
                "SELECT body FROM deliveries JOIN ratings USING (event_id) "
                "WHERE destination = ? AND batch = ? ORDER BY event_id",
                (place, batch),
            ).fetchall()
        return [parse_rating(body) for (body,) in found]

    def is_behind(self, destination: str) -> bool:
        """Whether a destination did not get all ratings and deletions yet."""
        return bool(self.unerased(destination)) or self._has_waiting(destination)

    def _has_waiting(self, destination: str) -> bool:
        with self._held():
            place = self._place(self._db, destination)
            query = f"SELECT EXISTS (SELECT 1 {CLAIMED}) OR EXISTS (SELECT 1 {UNCLAIMED})"
            return bool(self._db.execute(query, (place, place)).fetchone()[0])

    def mark_exported(self, destination: str, event_ids: Sequence[str]) -> None:
        """Record that these claimed ratings are durably in a shard of the destination."""
        with self._writing() as db:
            place = self._add_destination(db, destination)
            db.executemany(
                "UPDATE deliveries SET delivered = 1 WHERE destination = ? AND event_id = ?",
                [(place, event) for event in event_ids],
            )

    def unerased(self, destination: str) -> list[Tombstone]:
        """Return the deletions that a destination does not know yet, sorted.

        That is more than what is outstanding there: also a destination that never got a rating learns of
        its deletion, so that a copy which another machine adds later is not read.
        """
        with self._held():
            place = self._place(self._db, destination)
        erased = "SELECT 1 FROM erasures e WHERE e.destination = ? AND e.event_id = tombstones.event_id"
        return self._tombstones(f"NOT EXISTS ({erased})", (place,))

    def mark_erased(self, destination: str, event_ids: Sequence[str]) -> None:
        """Record that a destination knows these deletions, and no longer holds the ratings."""
        with self._writing() as db:
            place = self._add_destination(db, destination)
            db.executemany(
                "INSERT OR IGNORE INTO erasures (destination, event_id) VALUES (?, ?)",
                [(place, event) for event in event_ids],
            )

    def destinations(self) -> list[Destination]:
        """Return every destination that was exported to, sorted by name, and what is still to be done there."""
        with self._held():
            rows = self._db.execute(
                "SELECT id, name, count(v.delivered AND r.standing OR NULL), count(v.assumed AND v.delivered OR NULL) "
                "FROM destinations d LEFT JOIN deliveries v ON v.destination = d.id LEFT JOIN ratings r "
                "ON r.event_id = v.event_id AND r.standing GROUP BY id"
            ).fetchall()
            (standing,) = self._db.execute("SELECT count(*) FROM ratings WHERE standing AND consent").fetchone()
            outstanding: dict[int, list[str]] = {}
            for place, event in self._db.execute("SELECT destination, event_id FROM outstanding ORDER BY event_id"):
                outstanding.setdefault(place, []).append(event)
        found = [
            Destination(
                name=self._named(name),
                delivered=delivered,
                waiting=0 if name == UNRECORDED else standing - delivered,
                assumed=assumed,
                outstanding=tuple(outstanding.get(place, ())),
            )
            for place, name, delivered, assumed in rows
        ]
        return sorted(found, key=lambda one: one.name)

    def holders(self, event_id: str) -> list[str]:
        """Return the destinations that got a deleted rating or an earlier version, and have not erased it; sorted."""
        with self._held():
            found = self._db.execute(
                "SELECT DISTINCT name FROM outstanding JOIN destinations ON id = destination WHERE event_id = :event "
                "OR generation_id = (SELECT generation_id FROM tombstones WHERE event_id = :event)",
                {"event": event_id},
            ).fetchall()
        return sorted(self._named(name) for (name,) in found)

    def received(self, destination: str) -> tuple[int, int]:
        """Return how many ratings a destination got, deleted ones included, and for how many that is assumed."""
        with self._held():
            row = self._db.execute(
                "SELECT count(*), coalesce(sum(assumed), 0) FROM deliveries WHERE delivered AND destination = ?",
                (self._place(self._db, destination),),
            ).fetchone()
        return int(row[0]), int(row[1])

    def disprove(self, destination: str) -> None:
        """Record that what version 1 exported is not at this destination: it went to one that was not recorded."""
        with self._writing() as db:
            db.execute("DELETE FROM erasures WHERE destination = ?", (self._place(db, destination),))
            db.execute("UPDATE destinations SET name = ? WHERE name = ?", (UNRECORDED, self._stored(destination)))

    def forget(self, destination: str) -> bool:
        """Forget a destination that is gone for good, with all that it held; return whether it was known."""
        with self._writing() as db:
            place = self._place(db, destination)
            for table, column in (("deliveries", "destination"), ("erasures", "destination"), ("destinations", "id")):
                db.execute(f"DELETE FROM {table} WHERE {column} = ?", (place,))
        return place is not None

    def _tombstones(self, condition: str, values: tuple[int | None, ...]) -> list[Tombstone]:
        with self._held():
            found = self._db.execute(
                f"SELECT event_id, created_utc FROM tombstones WHERE {condition} ORDER BY event_id", values
            ).fetchall()
        return [Tombstone(event_id=event, created_utc=created) for event, created in found]

    def _place(self, db: sqlite3.Connection, destination: str) -> int | None:
        row = db.execute("SELECT id FROM destinations WHERE name = ?", (self._stored(destination),)).fetchone()
        return int(row[0]) if row else None

    def _add_destination(self, db: sqlite3.Connection, destination: str) -> int:
        db.execute("INSERT OR IGNORE INTO destinations (name) VALUES (?)", (self._stored(destination),))
        place = self._place(db, destination)
        assert place is not None
        return place


def parse_rating(body: bytes) -> Rating:
    """Read a rating as it is stored."""
    return Rating.model_validate(json.loads(body))
