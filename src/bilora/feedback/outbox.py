"""The outbox: where a rating is safe the moment it is acknowledged, until it has been exported.

SQLite in WAL mode with `synchronous=FULL`: a commit is on the disk, and a process that dies at any
moment leaves the last commit (sqlite.org/wal.html). One row per event; of each generation at most one
event stands, the others were superseded. A delivery's `batch` is the shard of its destination that the
rating goes to, and never changes, so that an export that died is repeated with the same bytes.

Destinations are known by their one name (`shards.Target.name`). A folder beside the outbox is stored by its
name relative to the outbox, so that both can be moved together.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bilora.errors import BadData, BiloraError
from bilora.feedback import schema
from bilora.feedback.events import is_event_id
from bilora.feedback.folders import alone, sync
from bilora.feedback.places import UNRECORDED
from bilora.records import Rating, Tombstone
from bilora.storage import dump_json

RETRY_S = 0.001
SHARD_RATINGS = 1000
"""Most ratings per shard; a rating is some kilobytes, so a shard stays below the hub's LFS threshold."""
DEFAULT_FOLDER = "shards"
"""The default destination, beside the outbox."""


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


CLAIMED = "FROM deliveries JOIN ratings USING (event_id) WHERE destination = ? AND NOT delivered"
UNCLAIMED = (
    "FROM ratings r WHERE standing AND consent AND NOT EXISTS "
    "(SELECT 1 FROM deliveries v WHERE v.destination = ? AND v.event_id = r.event_id)"
)


class OutboxFault(BiloraError):
    """The outbox did not take or give something; what it holds is as it was."""

    def __init__(self, path: Path, error: Exception) -> None:
        super().__init__(f"{path}: {error}; nothing was changed. Make room or free the file, and try again.")


class Outbox:
    """The ratings of this machine. Safe for many threads and processes at once."""

    def __init__(self, path: Path, *, patience_s: float = 5.0) -> None:
        """Open the outbox, or make it.

        Args:
            path: an SQLite file; its folder is made.
            patience_s: how long to wait for other writers before OutboxFault.

        Raises:
            BadData: the file is something else, or of another version.
            OutboxFault: it cannot be opened or made here.
        """
        self._path = path
        self._mine = threading.Lock()
        self._patience_s = patience_s
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._held(), alone(path.parent):  # a file is made, and WAL switched on, by one process
            self._db = self._open(patience_s)
            sync(path.parent)

    def _open(self, patience_s: float) -> sqlite3.Connection:
        self._path.touch(mode=0o600)  # it holds what people wrote, before scrubbing
        db = sqlite3.connect(self._path, timeout=patience_s, isolation_level=None, check_same_thread=False)
        try:
            mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise BadData(self._path, "lies on a file system without shared memory; put it on a local disk.")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA secure_delete = ON")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                schema.create(db)
            elif version == 1:
                schema.migrate(db, self._stored(os.path.realpath(self._path.parent / DEFAULT_FOLDER)))
            elif version != schema.VERSION:
                raise BadData(
                    self._path, f"is an outbox of version {version}; this BiLoRA reads 1 to {schema.VERSION}."
                )
        except BaseException:
            db.close()
            raise
        return db

    def add(self, rating: Rating) -> bool:
        """Store a rating; True means it is on the disk.

        Nothing is stored, and the answer is False, if there is nothing to do: the event is known or was
        deleted, or its generation is rated already and this one does not supersede what stands.
        A rating without consent that supersedes one withdraws the earlier ones: they are deleted here, and
        their erasure is outstanding at every destination that got them.

        Raises:
            BadData: it supersedes a rating of another generation.
            OutboxFault: it is not stored: the disk is full, or other writers took too long.
        """
        body = dump_json(rating.model_dump(mode="json")).encode("utf-8", errors="backslashreplace")
        with self._writing() as db:
            known = "SELECT 1 FROM ratings WHERE event_id = :id UNION ALL SELECT 1 FROM tombstones WHERE event_id = :id"
            if db.execute(known, {"id": rating.event_id}).fetchone():
                return False
            before = self._stands(db, "event_id", rating.generation_id)
            if before is not None and before != rating.supersedes:
                return False
            if self._generation(db, rating.supersedes) not in (None, rating.generation_id):
                raise BadData(rating.event_id, f"cannot supersede {rating.supersedes}, which rates another answer.")
            if rating.supersedes and not rating.consent:
                self._bury(db, {rating.supersedes}, rating.generation_id, rating.created_utc)
            db.execute("UPDATE ratings SET standing = 0 WHERE generation_id = ?", (rating.generation_id,))
            db.execute(
                "INSERT INTO ratings (event_id, generation_id, day, consent, body) VALUES (?, ?, ?, ?, ?)",
                (rating.event_id, rating.generation_id, rating.created_utc[:10], rating.consent, body),
            )
        return True

    def standing(self, generation_id: str) -> Rating | None:
        """Return the rating that stands for a generation, or None."""
        with self._held():
            body = self._stands(self._db, "body", generation_id)
        return None if body is None else _rating(body)

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
        return [_rating(body) for (body,) in found]

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

    def delete(self, event_id: str, *, created_utc: str) -> bool:
        """Erase a rating and all others of its generation; return whether it was here.

        A tombstone stays, also for an event that is not here (its disk may have been wiped), so that
        the next export to each destination erases it there, and a late repetition does not bring it back.

        Raises:
            BadData: `event_id` is no event id.
            OutboxFault: nothing was deleted.
        """
        if not is_event_id(event_id):
            raise BadData(repr(event_id), "is no event id: 26 letters and digits, as shown with the rating.")
        with self._writing() as db:
            generation_id = self._generation(db, event_id)
            self._bury(db, {event_id}, generation_id, created_utc)
        with self._mine, contextlib.suppress(sqlite3.OperationalError):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log still holds the text
        return generation_id is not None

    def tombstones(self) -> list[Tombstone]:
        """Return all deletions, sorted."""
        return self._tombstones("1", ())

    def unerased(self, destination: str) -> list[Tombstone]:
        """Return the deletions that a destination does not know yet, sorted.

        That is more than what is outstanding there: also a destination that never got a rating learns of
        its deletion, so that a copy which another machine adds later is not read.
        """
        with self._held():
            place = self._place(self._db, destination)
        erased = "SELECT 1 FROM erasures e WHERE e.destination = ? AND e.event_id = tombstones.event_id"
        return self._tombstones(f"NOT EXISTS ({erased})", (place,))

    def _tombstones(self, condition: str, values: tuple[int | None, ...]) -> list[Tombstone]:
        with self._held():
            found = self._db.execute(
                f"SELECT event_id, created_utc FROM tombstones WHERE {condition} ORDER BY event_id", values
            ).fetchall()
        return [Tombstone(event_id=event, created_utc=created) for event, created in found]

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

    def counts(self) -> dict[str, int]:
        """Count what is here: `standing` ratings, `exported` to any destination, `waiting` or kept here (`private`).

        `deletions_waiting` are the deletions that are outstanding at some destination, and those of ratings
        that this outbox does not know, until some destination has erased them.
        """
        with self._held():
            row = self._db.execute(
                "SELECT coalesce(sum(standing), 0), coalesce(sum(standing AND sent), 0), "
                "coalesce(sum(standing AND consent AND NOT sent), 0), "
                "coalesce(sum(standing AND NOT consent), 0), coalesce(sum(NOT standing), 0), "
                "(SELECT count(*) FROM tombstones), "
                "(SELECT count(*) FROM tombstones t WHERE event_id IN (SELECT event_id FROM outstanding) "
                "OR NOT known AND NOT EXISTS (SELECT 1 FROM erasures e WHERE e.event_id = t.event_id)) "
                "FROM (SELECT standing, consent, EXISTS (SELECT 1 FROM deliveries v WHERE v.event_id = r.event_id "
                "AND v.delivered) AS sent FROM ratings r)"
            ).fetchone()
        names = ("standing", "exported", "waiting", "private", "superseded", "deleted", "deletions_waiting")
        return dict(zip(names, row, strict=True))

    def unknown_deletions(self) -> int:
        """Count the deletions of ratings that this outbox does not know, so that any place may hold them."""
        with self._held():
            return int(self._db.execute("SELECT count(*) FROM tombstones WHERE NOT known").fetchone()[0])

    @contextlib.contextmanager
    def exporting(self) -> Iterator[None]:
        """Be the only exporter of this outbox; adding goes on meanwhile."""
        with alone(self._path.with_name(f"{self._path.name}.export")):
            yield

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @staticmethod
    def _stands(db: sqlite3.Connection, column: str, generation_id: str) -> Any:
        found = db.execute(f"SELECT {column} FROM ratings WHERE generation_id = ? AND standing", (generation_id,))
        row = found.fetchone()
        return row[0] if row else None

    @staticmethod
    def _generation(db: sqlite3.Connection, event_id: str | None) -> str | None:
        row = db.execute("SELECT generation_id FROM ratings WHERE event_id = ?", (event_id,)).fetchone()
        return row[0] if row else None

    @staticmethod
    def _bury(db: sqlite3.Connection, event_ids: set[str], generation_id: str | None, created_utc: str) -> None:
        found = db.execute("SELECT event_id FROM ratings WHERE generation_id = ?", (generation_id,)).fetchall()
        known = {event for (event,) in found}
        for event in sorted(event_ids | known):
            db.execute("DELETE FROM ratings WHERE event_id = ?", (event,))
            db.execute(
                "INSERT OR IGNORE INTO tombstones (event_id, created_utc, generation_id, known) VALUES (?, ?, ?, ?)",
                (event, created_utc, generation_id, event in known),
            )

    def _stored(self, destination: str) -> str:
        """Name a folder beside the outbox relative to it, and anything else as it is."""
        folder = Path(os.path.realpath(self._path.parent))
        if not Path(destination).is_relative_to(folder):
            return destination
        return Path(destination).relative_to(folder).as_posix()

    def _named(self, stored: str) -> str:
        """Undo `_stored`."""
        if stored == UNRECORDED or "://" in stored:
            return stored
        return str(Path(os.path.realpath(self._path.parent)) / stored)

    def _place(self, db: sqlite3.Connection, destination: str) -> int | None:
        row = db.execute("SELECT id FROM destinations WHERE name = ?", (self._stored(destination),)).fetchone()
        return int(row[0]) if row else None

    def _add_destination(self, db: sqlite3.Connection, destination: str) -> int:
        db.execute("INSERT OR IGNORE INTO destinations (name) VALUES (?)", (self._stored(destination),))
        place = self._place(db, destination)
        assert place is not None
        return place

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that holds the write lock from its start, so that what it read still holds when it writes."""
        with self._held():
            self._begin()
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _begin(self) -> None:
        """Take the write lock. SQLite's own waiting sleeps up to 0.1 s at a time: too long for who just clicked."""
        until = time.monotonic() + self._patience_s
        self._db.execute("PRAGMA busy_timeout = 0")
        try:
            while True:
                try:
                    self._db.execute("BEGIN IMMEDIATE")
                    return
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                        raise
                time.sleep(RETRY_S)
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {int(1000 * self._patience_s)}")

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """The connection for one thread; what goes wrong is said in our words."""
        try:
            with self._mine:
                yield
        except sqlite3.OperationalError as error:
            raise OutboxFault(self._path, error) from error
        except sqlite3.DatabaseError as error:
            raise BadData(self._path, f"is no sound outbox ({error}); move it away and start again.") from error


def _rating(body: bytes) -> Rating:
    return Rating.model_validate(json.loads(body))
