"""The outbox: durable storage of ratings until they are exported.

Each event is one row; per generation at most one event is valid, the others are superseded. `deliveries` records what
each destination received, and `database` makes commits durable.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

from bilora.errors import BadData
from bilora.feedback.deliveries import Deliveries, parse_rating
from bilora.feedback.events import is_event_id
from bilora.locks import exclusive_lock
from bilora.records import Rating, Tombstone
from bilora.storage import dump_json


class Outbox(Deliveries):
    """The ratings of this machine, safe for many threads and processes."""

    def add(self, rating: Rating) -> bool:
        """Store a rating; return True once it is durable.

        Return False and store nothing if the event is known or deleted, or if its generation has a valid rating that it
        does not supersede. A rating without consent withdraws the ones that it supersedes: they are deleted here, and
        their erasure is outstanding at every destination that received them.

        Raises:
            BadData: it supersedes a rating of another generation.
            OutboxFault: the disk is full, or other writers took too long.
        """
        body = dump_json(rating.model_dump(mode="json")).encode("utf-8", errors="backslashreplace")
        with self._transaction() as db:
            known = "SELECT 1 FROM ratings WHERE event_id = :id UNION ALL SELECT 1 FROM tombstones WHERE event_id = :id"
            if db.execute(known, {"id": rating.event_id}).fetchone():
                return False
            valid = self._valid(db, rating.generation_id)
            if valid is not None and valid[0] != rating.supersedes:
                return False
            if self._generation_of(db, rating.supersedes) not in (None, rating.generation_id):
                raise BadData(rating.event_id, f"cannot supersede {rating.supersedes}, which rates another answer.")
            if rating.supersedes and not rating.consent:
                self._delete(db, {rating.supersedes}, rating.generation_id, rating.created_utc)
            db.execute("UPDATE ratings SET standing = 0 WHERE generation_id = ?", (rating.generation_id,))
            db.execute(
                "INSERT INTO ratings (event_id, generation_id, day, consent, body) VALUES (?, ?, ?, ?, ?)",
                (rating.event_id, rating.generation_id, rating.created_utc[:10], rating.consent, body),
            )
        return True

    def valid_rating(self, generation_id: str) -> Rating | None:
        """Return the valid rating of a generation, or None."""
        with self._exclusive_access():
            valid = self._valid(self._db, generation_id)
        return parse_rating(valid[1]) if valid else None

    def delete(self, event_id: str, *, created_utc: str) -> bool:
        """Delete a rating and all others of its generation; return whether it is or was in this outbox.

        It leaves a tombstone, so that the next export erases the rating at each destination, and the event cannot be
        added again. An unknown event gets a tombstone too: the disk with its rating may have been wiped.

        Raises:
            BadData: `event_id` is not an event id.
            OutboxFault: nothing was deleted.
        """
        if not is_event_id(event_id):
            raise BadData(repr(event_id), "is not an event id: 26 letters and digits, which the page shows.")
        with self._transaction() as db:
            generation_id = self._generation_of(db, event_id)
            self._delete(db, {event_id}, generation_id, created_utc)
            (known,) = db.execute("SELECT known FROM tombstones WHERE event_id = ?", (event_id,)).fetchone()
        with self._lock, contextlib.suppress(sqlite3.OperationalError):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the write-ahead log contains the text
        return bool(known)

    def tombstones(self) -> list[Tombstone]:
        """Return all deletions, sorted."""
        return self._tombstones("1", ())

    def counts(self) -> dict[str, int]:
        """Return the number of valid ratings, by state, and of superseded and deleted ones.

        `exported` counts ratings at any destination, `private` those without consent. `deletions_waiting` counts
        deletions that are outstanding at a destination, and those of unknown ratings that no destination has erased.
        """
        with self._exclusive_access():
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
        names = ("valid", "exported", "waiting", "private", "superseded", "deleted", "deletions_waiting")
        return dict(zip(names, row, strict=True))

    def unknown_deletions(self) -> int:
        """Return the number of deletions of ratings unknown to this outbox, which may be at any destination."""
        with self._exclusive_access():
            return int(self._db.execute("SELECT count(*) FROM tombstones WHERE NOT known").fetchone()[0])

    @contextlib.contextmanager
    def exporting(self) -> Iterator[None]:
        """Lock the outbox against other exports; adding ratings stays possible."""
        with exclusive_lock(self._path.with_name(f"{self._path.name}.export")):
            yield

    @staticmethod
    def _valid(db: sqlite3.Connection, generation_id: str) -> tuple[str, bytes] | None:
        """Return the event id and the stored bytes of the valid rating of a generation."""
        query = "SELECT event_id, body FROM ratings WHERE generation_id = ? AND standing"
        row: tuple[str, bytes] | None = db.execute(query, (generation_id,)).fetchone()
        return row

    @staticmethod
    def _generation_of(db: sqlite3.Connection, event_id: str | None) -> str | None:
        row = db.execute("SELECT generation_id FROM ratings WHERE event_id = ?", (event_id,)).fetchone()
        return row[0] if row else None

    @staticmethod
    def _delete(db: sqlite3.Connection, event_ids: set[str], generation_id: str | None, created_utc: str) -> None:
        rows = db.execute("SELECT event_id FROM ratings WHERE generation_id = ?", (generation_id,)).fetchall()
        known = {event for (event,) in rows}
        for event in sorted(event_ids | known):
            db.execute("DELETE FROM ratings WHERE event_id = ?", (event,))
            db.execute(
                "INSERT OR IGNORE INTO tombstones (event_id, created_utc, generation_id, known) VALUES (?, ?, ?, ?)",
                (event, created_utc, generation_id, event in known),
            )
