"""The SQLite file of an outbox, for many threads and processes.

It is in WAL mode with `synchronous=FULL`: every commit is durable, whenever a process dies (sqlite.org/wal.html).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from bilora.errors import BadData, BiloraError, ExitCode
from bilora.feedback import schema
from bilora.feedback.destination_names import UNRECORDED
from bilora.locks import exclusive_lock, sync_folder

RETRY_S = 0.001
DEFAULT_FOLDER = "shards"
"""The folder of the default destination, beside the file."""


_INFRASTRUCTURE = ExitCode.INFRASTRUCTURE
_ADVICE: dict[int, tuple[str, ExitCode]] = {
    sqlite3.SQLITE_BUSY: ("Wait until other programs have closed it", ExitCode.UNREACHABLE),
    sqlite3.SQLITE_LOCKED: ("Wait until other programs have closed it", ExitCode.UNREACHABLE),
    sqlite3.SQLITE_FULL: ("Free some space on its disk", _INFRASTRUCTURE),
    sqlite3.SQLITE_IOERR: ("Free some space on its disk, or check the disk", _INFRASTRUCTURE),
    sqlite3.SQLITE_READONLY: ("Make the file and its folder writable for this user", _INFRASTRUCTURE),
    sqlite3.SQLITE_CANTOPEN: ("Make the file and its folder writable for this user", _INFRASTRUCTURE),
    sqlite3.SQLITE_NOMEM: ("Stop other programs", _INFRASTRUCTURE),
}
"""The advice and the exit code, by SQLite's result code."""


class OutboxFault(BiloraError):
    """A read or write of the outbox failed and changed nothing."""

    def __init__(self, path: Path, error: sqlite3.Error) -> None:
        cause = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the sqlite3 module's own errors have no code
        advice, self.exit_code = _ADVICE.get(
            cause, ("Check the disk and the permissions of its folder", _INFRASTRUCTURE)
        )
        super().__init__(f"{path}: {error}; nothing was changed. {advice}, and try again.")


class Database:
    """The file of an outbox, its transactions, and its stored names of destinations.

    A folder beside the file is stored relative to it, so that both can be moved together.
    """

    def __init__(self, path: Path, *, timeout_s: float = 5.0) -> None:
        """Open the outbox, or create it with its folder.

        Args:
            path: the SQLite file.
            timeout_s: how long to wait for other writers before an OutboxFault.

        Raises:
            BadData: the file is not an outbox, or of another version.
            OutboxFault: it cannot be opened or created.
        """
        self._path = path
        self._lock = threading.Lock()
        self._timeout_s = timeout_s
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._exclusive_access(), exclusive_lock(path.parent):  # one process creates the file and enables WAL
            self._db = self._open(timeout_s)
            sync_folder(path.parent)

    def _open(self, timeout_s: float) -> sqlite3.Connection:
        if self._path.is_dir():
            raise BadData(self._path, "is a folder, not a file; move it away and start again.")
        self._path.touch(mode=0o600)  # it contains unredacted text of users
        db = sqlite3.connect(self._path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
        try:
            mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise BadData(self._path, "is on a file system without shared memory; move it to a local disk.")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA secure_delete = ON")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise BadData(self._path, "is a database of another program; move it away and start again.")
                schema.create(db)
            elif version == 1:
                schema.migrate(db, self._to_stored(os.path.realpath(self._path.parent / DEFAULT_FOLDER)))
            elif version != schema.VERSION:
                raise BadData(
                    self._path, f"is an outbox of version {version}; this BiLoRA reads 1 to {schema.VERSION}."
                )
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _to_stored(self, destination: str) -> str:
        """Return a folder beside the outbox as a relative path, any other destination unchanged."""
        folder = Path(os.path.realpath(self._path.parent))
        if not Path(destination).is_relative_to(folder):
            return destination
        name = Path(destination).relative_to(folder).as_posix()
        return destination if name == UNRECORDED else name

    def _from_stored(self, stored: str) -> str:
        """Invert `_to_stored`."""
        if stored == UNRECORDED or "://" in stored:
            return stored
        return str(Path(os.path.realpath(self._path.parent)) / stored)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Run a transaction that has the write lock from its start, so that no other writer comes between."""
        with self._exclusive_access():
            self._begin()
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _begin(self) -> None:
        """Acquire the write lock. SQLite's own wait sleeps up to 0.1 s at a time: too slow for a click on the page."""
        deadline = time.monotonic() + self._timeout_s
        self._db.execute("PRAGMA busy_timeout = 0")
        try:
            while True:
                try:
                    self._db.execute("BEGIN IMMEDIATE")
                    return
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                        raise
                time.sleep(RETRY_S)
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {int(1000 * self._timeout_s)}")

    @contextlib.contextmanager
    def _exclusive_access(self) -> Iterator[None]:
        """Let one thread use the connection, and turn SQLite's errors into BiloraErrors."""
        try:
            with self._lock:
                yield
        except sqlite3.OperationalError as error:
            raise OutboxFault(self._path, error) from error
        except sqlite3.DatabaseError as error:
            raise BadData(self._path, f"is not a valid outbox ({error}); move it away and start again.") from error
