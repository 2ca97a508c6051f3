"""Shards: files of JSON lines that never change, named by the hash of their bytes, one day each.

    feedback/dt=2026-01-31/SHA256.jsonl     ratings
    deleted/dt=2026-01-31/SHA256.jsonl      tombstones

Equal content has one name, so writing it again changes nothing. What belongs together is resolved on reading.
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
    """A destination of shards: a folder, or a dataset repository."""

    @property
    def name(self) -> str:
        """The destination's one name, however it was typed."""
        ...

    def names(self, subfolder: str) -> list[str]:
        """Return the names of the shards in a sub-folder, sorted."""
        ...

    def read(self, name: str) -> bytes:
        """Return a shard's bytes."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Return once the shard is durably there; the same again changes nothing."""
        ...

    def remove(self, name: str) -> None:
        """Return once the shard is gone; one that is not there is gone."""
        ...


class FolderTarget:
    """Shards in a folder; implements `Target`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        """The folder's real path: relative or through a link, it is the same folder."""
        return os.path.realpath(self._path)

    def names(self, subfolder: str) -> list[str]:
        """Return the names of the shards in a sub-folder, sorted.

        Raises:
            OSError: a folder may not be read, which is not the same as empty.
        """
        days = [day for day in _entries(self._path / subfolder) if day.name.startswith("dt=") and day.is_dir()]
        found = [path for day in days for path in _entries(day) if path.suffix == ".jsonl"]
        return sorted(path.relative_to(self._path).as_posix() for path in found if not path.name.startswith("."))

    def read(self, name: str) -> bytes:
        """Return a shard's bytes."""
        return (self._path / name).read_bytes()

    def put(self, name: str, data: bytes) -> None:
        """Return once the shard is durably there; the same again changes nothing."""
        path = self._path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(self._path):
            for left in self._path.glob("*/dt=*/.*.tmp"):  # of a put that was killed; the lock is ours
                left.unlink()
            with atomic(path) as temporary:
                temporary.write_bytes(data)
        for folder in (path.parent, path.parent.parent, self._path):
            sync_folder(folder)

    def remove(self, name: str) -> None:
        """Return once the shard is gone; one that is not there is gone."""
        path = self._path / name
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            sync_folder(path.parent)


def _entries(folder: Path) -> list[Path]:
    """Return what is in a folder; one that is not there holds nothing."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def shard(events: Sequence[Event]) -> tuple[str, bytes]:
    """Return the name and bytes of the shard that holds these events, which are of one kind and day."""
    lines = [dump_json(event.model_dump(mode="json")) + "\n" for event in events]
    data = "".join(lines).encode("utf-8", errors="backslashreplace")
    subfolder, day = SUBFOLDERS[type(events[0])], events[0].created_utc[:10]
    return f"{subfolder}/dt={day}/{sha256_bytes(data)}.jsonl", data


def read_shards(target: Target, kind: type[Event]) -> dict[str, list[Event]]:
    """Read all shards of one kind, by name.

    Raises:
        BadData: a shard is not what its name says, or a line does not hold a `kind`.
    """
    names = target.names(SUBFOLDERS[kind])
    while True:
        try:
            return {name: _parse(f"{target.name}/{name}", target.read(name), kind) for name in names}
        except FileNotFoundError:  # an export that erases has replaced it since
            before, names = names, target.names(SUBFOLDERS[kind])
            if names == before:
                raise


def _parse(path: str, data: bytes, kind: type[Event]) -> list[Event]:
    if Path(path).stem != sha256_bytes(data):
        raise BadData(path, "is not what its name says; restore it from a copy, or move it away.")
    events = []
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            events.append(kind.model_validate(json.loads(line)))
        except (ValidationError, ValueError, RecursionError) as error:
            first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise BadData(path, f"not a {kind.__name__}: {first}.", number) from None
    return events
