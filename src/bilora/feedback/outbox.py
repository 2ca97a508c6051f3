"""The outbox: where a rating is safe the moment it is acknowledged, until it has been exported.

SQLite in WAL mode with `synchronous=FULL`: a commit is on the disk, and a process that dies at any
moment leaves the last commit (sqlite.org/wal.html). One row an event; of each generation at most one
event stands, the others were superseded. A row's `batch` is the shard it will go to, and never
changes, so that an export that died is repeated with the same bytes.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bilora.errors import BadData, BiloraError, ExitCode
from bilora.feedback.events import is_event_id
from bilora.feedback.folders import alone, sync
from bilora.records import Rating, Tombstone
from bilora.storage import dump_json

VERSION = 1
RETRY_S = 0.001
SHARD_RATINGS = 1000
"""Most ratings a shard; a rating is some kilobytes, so a shard stays below the hub's LFS threshold."""

TABLES = """
CREATE TABLE ratings (
    event_id TEXT PRIMARY KEY,
    generation_id TEXT NOT NULL,
    day TEXT NOT NULL,
    consent INTEGER NOT NULL,
    standing INTEGER NOT NULL DEFAULT 1,
    batch INTEGER,
    exported INTEGER NOT NULL DEFAULT 0,
    body BLOB NOT NULL
);
CREATE UNIQUE INDEX one_stands ON ratings (generation_id) WHERE standing;
CREATE INDEX generations ON ratings (generation_id);
CREATE INDEX unclaimed ON ratings (day) WHERE standing AND consent AND batch IS NULL;
CREATE INDEX batches ON ratings (batch, exported) WHERE batch IS NOT NULL;
CREATE TABLE tombstones (
    event_id TEXT PRIMARY KEY,
    created_utc TEXT NOT NULL,
    exported INTEGER NOT NULL DEFAULT 0
);
"""


MACHINE = ExitCode.INFRASTRUCTURE
ADVICE: dict[int, tuple[str, ExitCode]] = {
    sqlite3.SQLITE_BUSY: ("Wait until other programs have let it go", ExitCode.UNREACHABLE),
    sqlite3.SQLITE_LOCKED: ("Wait until other programs have let it go", ExitCode.UNREACHABLE),
    sqlite3.SQLITE_FULL: ("Make room on its disk", MACHINE),
    sqlite3.SQLITE_IOERR: ("Make room on its disk, or look at it", MACHINE),
    sqlite3.SQLITE_READONLY: ("See that this user may write the file and its folder", MACHINE),
    sqlite3.SQLITE_CANTOPEN: ("See that this user may write the file and its folder", MACHINE),
    sqlite3.SQLITE_NOMEM: ("End other programs", MACHINE),
}
"""Of SQLite's result codes: what helps, and the exit code."""


class OutboxFault(BiloraError):
    """The outbox did not take or give something; what it holds is as it was."""

    def __init__(self, path: Path, error: sqlite3.Error) -> None:
        cause = getattr(error, "sqlite_errorcode", 0) & 0xFF  # Python's own errors have none
        advice, self.exit_code = ADVICE.get(cause, ("Look at the disk and at the permissions of its folder", MACHINE))
        super().__init__(f"{path}: {error}; nothing was changed. {advice}, and try again.")


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
                db.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
            elif version != VERSION:
                raise BadData(self._path, f"is an outbox of version {version}; this BiLoRA reads {VERSION}.")
        except BaseException:
            db.close()
            raise
        return db

    def add(self, rating: Rating) -> bool:
        """Store a rating; True means it is on the disk.

        Nothing is stored, and the answer is False, if there is nothing to do: the event is known or was
        deleted, or its generation is rated already and this one does not supersede what stands.
        A rating without consent that supersedes one takes the earlier ones back everywhere.

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

    def claim(self, limit: int = SHARD_RATINGS) -> list[Rating]:
        """Return the ratings of the next shard: of one day, with consent, sorted by event; [] if none waits.

        What is claimed stays together: until `mark_exported`, the same ratings are returned again,
        whoever asks, less those that were deleted since.
        """
        with self._writing() as db:
            (batch,) = db.execute("SELECT min(batch) FROM ratings WHERE batch IS NOT NULL AND NOT exported").fetchone()
            if batch is None:
                waiting = "standing AND consent AND batch IS NULL"
                (day,) = db.execute(f"SELECT min(day) FROM ratings WHERE {waiting}").fetchone()
                if day is None:
                    return []
                (batch,) = db.execute("SELECT coalesce(max(batch), 0) + 1 FROM ratings").fetchone()
                db.execute(
                    "UPDATE ratings SET batch = ? WHERE event_id IN (SELECT event_id FROM ratings "
                    f"WHERE {waiting} AND day = ? ORDER BY event_id LIMIT ?)",
                    (batch, day, limit),
                )
            found = db.execute("SELECT body FROM ratings WHERE batch = ? ORDER BY event_id", (batch,)).fetchall()
        return [_rating(body) for (body,) in found]

    def mark_exported(self, event_ids: Sequence[str]) -> None:
        """Note that these claimed ratings lie durably in a shard."""
        with self._writing() as db:
            db.executemany("UPDATE ratings SET exported = 1 WHERE event_id = ?", [(event,) for event in event_ids])

    def delete(self, event_id: str, *, created_utc: str) -> bool:
        """Erase a rating and all others of its generation; return whether it was here.

        A tombstone stays, also for an event that is not here (its disk may have been wiped), so that
        the next export erases it from the shards, and a late repetition does not bring it back.

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
        """Return the deletions that the shards do not know yet, sorted."""
        with self._held():
            found = self._db.execute(
                "SELECT event_id, created_utc FROM tombstones WHERE NOT exported ORDER BY event_id"
            ).fetchall()
        return [Tombstone(event_id=event, created_utc=created) for event, created in found]

    def mark_erased(self, event_ids: Sequence[str]) -> None:
        """Note that the shards know these deletions, and no longer hold the ratings."""
        with self._writing() as db:
            db.executemany("UPDATE tombstones SET exported = 1 WHERE event_id = ?", [(event,) for event in event_ids])

    def counts(self) -> dict[str, int]:
        """Count what is here: `standing` ratings, of which `exported`, `waiting` or kept here (`private`)."""
        with self._held():
            row = self._db.execute(
                "SELECT coalesce(sum(standing), 0), coalesce(sum(standing AND exported), 0), "
                "coalesce(sum(standing AND consent AND NOT exported), 0), "
                "coalesce(sum(standing AND NOT consent), 0), coalesce(sum(NOT standing), 0), "
                "(SELECT count(*) FROM tombstones), (SELECT count(*) FROM tombstones WHERE NOT exported) FROM ratings"
            ).fetchone()
        names = ("standing", "exported", "waiting", "private", "superseded", "deleted", "deletions_waiting")
        return dict(zip(names, row, strict=True))

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
        for event in sorted(event_ids.union(event for (event,) in found)):
            db.execute("DELETE FROM ratings WHERE event_id = ?", (event,))
            db.execute("INSERT OR IGNORE INTO tombstones (event_id, created_utc) VALUES (?, ?)", (event, created_utc))

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
