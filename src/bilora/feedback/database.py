"""An SQLite file that many threads and processes write at once, and what goes wrong with it in our words.

SQLite in WAL mode with `synchronous=FULL`: a commit is on the disk, and a process that dies at any
moment leaves the last commit (sqlite.org/wal.html).
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
"""The default destination, beside the file."""


_INFRASTRUCTURE = ExitCode.INFRASTRUCTURE
_ADVICE: dict[int, tuple[str, ExitCode]] = {
    sqlite3.SQLITE_BUSY: ("Wait until other programs have let it go", ExitCode.UNREACHABLE),
    sqlite3.SQLITE_LOCKED: ("Wait until other programs have let it go", ExitCode.UNREACHABLE),
    sqlite3.SQLITE_FULL: ("Make room on its disk", _INFRASTRUCTURE),
    sqlite3.SQLITE_IOERR: ("Make room on its disk, or look at it", _INFRASTRUCTURE),
    sqlite3.SQLITE_READONLY: ("See that this user may write the file and its folder", _INFRASTRUCTURE),
    sqlite3.SQLITE_CANTOPEN: ("See that this user may write the file and its folder", _INFRASTRUCTURE),
    sqlite3.SQLITE_NOMEM: ("End other programs", _INFRASTRUCTURE),
}
"""Of SQLite's result codes: what helps, and the exit code."""


class OutboxFault(BiloraError):
    """The outbox did not take or give something; what it holds is as it was."""

    def __init__(self, path: Path, error: sqlite3.Error) -> None:
        cause = getattr(error, "sqlite_errorcode", 0) & 0xFF  # Python's own errors have none
        advice, self.exit_code = _ADVICE.get(
            cause, ("Look at the disk and at the permissions of its folder", _INFRASTRUCTURE)
        )
        super().__init__(f"{path}: {error}; nothing was changed. {advice}, and try again.")


class Database:
    """The file of an outbox, its transactions, and how a destination is named in it.

    A folder beside the file is stored by its name relative to it, so that both can be moved together.
    """

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
        with self._held(), exclusive_lock(path.parent):  # a file is made, and WAL switched on, by one process
            self._db = self._open(patience_s)
            sync_folder(path.parent)

    def _open(self, patience_s: float) -> sqlite3.Connection:
        if self._path.is_dir():
            raise BadData(self._path, "is a folder, not a file; move it away and start again.")
        self._path.touch(mode=0o600)  # it holds what people wrote, before scrubbing
        db = sqlite3.connect(self._path, timeout=patience_s, isolation_level=None, check_same_thread=False)
        try:
            mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise BadData(self._path, "is on a file system without shared memory; put it on a local disk.")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA secure_delete = ON")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise BadData(self._path, "is a database of another program; move it away and start again.")
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

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stored(self, destination: str) -> str:
        """Name a folder beside the outbox relative to it, and anything else as it is."""
        folder = Path(os.path.realpath(self._path.parent))
        if not Path(destination).is_relative_to(folder):
            return destination
        name = Path(destination).relative_to(folder).as_posix()
        return destination if name == UNRECORDED else name

    def _named(self, stored: str) -> str:
        """Undo `_stored`."""
        if stored == UNRECORDED or "://" in stored:
            return stored
        return str(Path(os.path.realpath(self._path.parent)) / stored)

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
        """Take the write lock. SQLite's own waiting sleeps up to 0.1 s at a time: too long for a person who clicked."""
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
