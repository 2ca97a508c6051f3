"""The outbox: where a rating is safe the moment it is acknowledged, until it has been exported.

One row per event; of each generation at most one event is valid, the others were superseded. What becomes of it
at each destination is in `deliveries`, and how a commit survives a dying process in `database`.
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
    """The ratings of this machine. Safe for many threads and processes at once."""

    def add(self, rating: Rating) -> bool:
        """Store a rating; True means it is on the disk.

        Nothing is stored, and the answer is False, if there is nothing to do: the event is known or was
        deleted, or its generation is rated already and this one does not supersede the valid one.
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
            before = self._standing(db, rating.generation_id)
            if before is not None and before[0] != rating.supersedes:
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
        """Return the valid rating of a generation, or None."""
        with self._held():
            found = self._standing(self._db, generation_id)
        return parse_rating(found[1]) if found else None

    def delete(self, event_id: str, *, created_utc: str) -> bool:
        """Erase a rating and all others of its generation; return whether it is or was here.

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
            (known,) = db.execute("SELECT known FROM tombstones WHERE event_id = ?", (event_id,)).fetchone()
        with self._mine, contextlib.suppress(sqlite3.OperationalError):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log still holds the text
        return bool(known)

    def tombstones(self) -> list[Tombstone]:
        """Return all deletions, sorted."""
        return self._tombstones("1", ())

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
        with exclusive_lock(self._path.with_name(f"{self._path.name}.export")):
            yield

    @staticmethod
    def _standing(db: sqlite3.Connection, generation_id: str) -> tuple[str, bytes] | None:
        """Return the event id and the body of the valid rating of a generation."""
        query = "SELECT event_id, body FROM ratings WHERE generation_id = ? AND standing"
        row: tuple[str, bytes] | None = db.execute(query, (generation_id,)).fetchone()
        return row

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
