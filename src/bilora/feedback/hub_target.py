"""Shards in a dataset repository of the hub."""

from __future__ import annotations

from bilora.errors import BadData
from bilora.feedback.destination_names import HUB_DATASETS
from bilora.hub.repository import Repository


class HubTarget:
    """Shards in a dataset repository; implements `shards.Target`.

    A shard is named by its bytes, so adding one commutes with whatever others do there: a lost race is
    run again, an answer that was lost is looked up, and the same again makes no commit.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    @property
    def name(self) -> str:
        """hf://datasets/OWNER/NAME."""
        return f"{HUB_DATASETS}{self._repository.id}"

    def names(self, subfolder: str) -> list[str]:
        """Return the names of the shards in a sub-folder, sorted.

        Raises:
            Unreachable: the hub did not say.
        """
        head = self._repository.head()
        names = self._repository.names(head) if head else []
        return [name for name in names if name.startswith(f"{subfolder}/dt=") and name.endswith(".jsonl")]

    def read(self, name: str) -> bytes:
        """Return a shard's bytes.

        Raises:
            BadData: it is not there.
            Unreachable: the hub did not give it.
        """
        head = self._repository.head()
        found = self._repository.read(head, [name]) if head else {}
        if name not in found:
            raise BadData(f"{self._repository.id}/{name}", "is not there any more; read again.")
        return found[name]

    def put(self, name: str, data: bytes) -> None:
        """Return once the shard is in a commit.

        Raises:
            Unreachable: the hub did not take it.
        """
        self._repository.update({name: data}, [], message="Add ratings")

    def remove(self, name: str) -> None:
        """Return once the shard is gone from what is served; the repository's history keeps it.

        Raises:
            Unreachable: the hub did not take it.
        """
        self._repository.update({}, [name], message="Delete ratings")
