"""Shards in a dataset repository of the hub."""

from __future__ import annotations

from bilora.errors import BadData
from bilora.feedback.destination_names import HUB_DATASETS
from bilora.hub.repository import Repository


class HubTarget:
    """Shards in a dataset repository; implements `shards.Target`.

    A shard's name is the hash of its bytes, so writers do not conflict: a lost race is tried again, a lost reply is
    checked, and a repeated write makes no commit.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    @property
    def name(self) -> str:
        """The URL hf://datasets/OWNER/NAME."""
        return f"{HUB_DATASETS}{self._repository.id}"

    def names(self, subfolder: str) -> list[str]:
        """Return the names of the shards in a subfolder, sorted.

        Raises:
            Unreachable: the hub did not answer.
        """
        head = self._repository.head()
        names = self._repository.names(head) if head else []
        return [name for name in names if name.startswith(f"{subfolder}/dt=") and name.endswith(".jsonl")]

    def read(self, name: str) -> bytes:
        """Return a shard's bytes.

        Raises:
            BadData: it does not exist.
            Unreachable: the hub did not answer.
        """
        head = self._repository.head()
        files = self._repository.read(head, [name]) if head else {}
        if name not in files:
            raise BadData(f"{self._repository.id}/{name}", "does not exist any more; read again.")
        return files[name]

    def put(self, name: str, data: bytes) -> None:
        """Commit a shard.

        Raises:
            Unreachable: the hub did not accept it.
        """
        self._repository.update({name: data}, [], message="Add ratings")

    def remove(self, name: str) -> None:
        """Remove a shard from the latest revision; the repository's history keeps it.

        Raises:
            Unreachable: the hub did not accept it.
        """
        self._repository.update({}, [name], message="Delete ratings")
