"""Shards: immutable JSON Lines files, each with the events of one day, named by the hash of its bytes.

    feedback/dt=2026-01-31/SHA256.jsonl     ratings
    deleted/dt=2026-01-31/SHA256.jsonl      tombstones

Writing the same events again changes nothing. Deletions and superseded ratings are resolved on reading.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import ValidationError

from bilora.errors import BadData
from bilora.locks import exclusive_lock, sync_folder
from bilora.records import Rating, Tombstone
from bilora.storage import atomic, dump_json, sha256_bytes

Event = TypeVar("Event", Rating, Tombstone)
SUBFOLDERS = {Rating: "feedback", Tombstone: "deleted"}


class Target(Protocol):
    """A destination of shards: a folder or a dataset repository."""

    @property
    def name(self) -> str:
        """The canonical name of the destination."""
        ...

    def names(self, subfolder: str) -> list[str]:
        """Return the names of the shards in a subfolder, sorted."""
        ...

    def read(self, name: str) -> bytes:
        """Return a shard's bytes."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Write a shard durably; writing it again changes nothing."""
        ...

    def remove(self, name: str) -> None:
        """Remove a shard durably; a missing one is no error."""
        ...


class FolderTarget:
    """Shards in a folder; implements `Target`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        """The real path of the folder, the same for a relative path or a link to it."""
        return os.path.realpath(self._path)

    def names(self, subfolder: str) -> list[str]:
        """Return the names of the shards in a subfolder, sorted.

        Raises:
            OSError: a folder cannot be read.
        """
        days = [day for day in _entries(self._path / subfolder) if day.name.startswith("dt=") and day.is_dir()]
        paths = [path for day in days for path in _entries(day) if path.suffix == ".jsonl"]
        return sorted(path.relative_to(self._path).as_posix() for path in paths if not path.name.startswith("."))

    def read(self, name: str) -> bytes:
        """Return a shard's bytes."""
        return (self._path / name).read_bytes()

    def put(self, name: str, data: bytes) -> None:
        """Write a shard durably; writing it again changes nothing."""
        path = self._path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(self._path):
            for temporary in self._path.glob("*/dt=*/.*.tmp"):  # of a killed process: this one has the lock
                temporary.unlink()
            with atomic(path) as temporary:
                temporary.write_bytes(data)
        for folder in (path.parent, path.parent.parent, self._path):
            sync_folder(folder)

    def remove(self, name: str) -> None:
        """Remove a shard durably; a missing one is no error."""
        path = self._path / name
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            sync_folder(path.parent)


def _entries(folder: Path) -> list[Path]:
    """Return the entries of a folder; [] if it does not exist."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def build_shard(events: Sequence[Event]) -> tuple[str, bytes]:
    """Return the name and the bytes of a shard of these events, which have one type and one day."""
    lines = [dump_json(event.model_dump(mode="json")) + "\n" for event in events]
    data = "".join(lines).encode("utf-8", errors="backslashreplace")
    subfolder, day = SUBFOLDERS[type(events[0])], events[0].created_utc[:10]
    return f"{subfolder}/dt={day}/{sha256_bytes(data)}.jsonl", data


def read_shards(target: Target, kind: type[Event]) -> dict[str, list[Event]]:
    """Read all shards of one event type, by name.

    Raises:
        BadData: a shard's hash differs from its name, or a line is not a valid `kind`.
    """
    names = target.names(SUBFOLDERS[kind])
    while True:
        try:
            return {name: _parse(f"{target.name}/{name}", target.read(name), kind) for name in names}
        except FileNotFoundError:  # an export has rewritten it since
            previous, names = names, target.names(SUBFOLDERS[kind])
            if names == previous:
                raise


def _parse(path: str, data: bytes, kind: type[Event]) -> list[Event]:
    if Path(path).stem != sha256_bytes(data):
        raise BadData(path, "does not match its hash; restore it from a copy, or move it away.")
    events = []
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            events.append(kind.model_validate(json.loads(line)))
        except (ValidationError, ValueError, RecursionError) as error:
            first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise BadData(path, f"not a {kind.__name__}: {first}.", number) from None
    return events
