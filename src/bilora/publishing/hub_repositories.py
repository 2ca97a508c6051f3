"""Publish on the Hugging Face hub: one repository with the bundle, and one per adapter for servers that need that."""

from __future__ import annotations

from collections.abc import Callable

from bilora.hub.repository import Repository
from bilora.protocols import PublishResult
from bilora.publishing.bundle import bundled_tasks, check_paths, extract_adapter
from bilora.publishing.manifest import MANIFEST
from bilora.storage import sha256_bytes


class HubRepositories:
    """Publishes into `owner/name` and `owner/name-TASK`; implements `protocols.Hub`.

    The commits of the bundle's repository are the versions. It is written last, so the adapters'
    repositories already contain its current version. The next push completes an interrupted one;
    it commits only to repositories whose bytes differ.

    Args:
        repository: opens a repository by its id.
        repo_id: the id of the bundle's repository.
    """

    def __init__(self, repository: Callable[[str], Repository], repo_id: str) -> None:
        self._repository, self._bundle = repository, repository(repo_id)

    def digest(self) -> str | None:
        """Return the digest of the published manifest, or None."""
        head = self._bundle.head()
        manifest = self._bundle.read(head, [MANIFEST]).get(MANIFEST) if head else None
        return sha256_bytes(manifest) if manifest is not None else None

    def publish(self, files: dict[str, bytes], *, message: str) -> PublishResult:
        """Publish `files` in one commit per repository; the returned location contains the bundle's commit.

        Raises:
            BadData: there is no manifest, or a path is not inside the repository.
            Unreachable: a commit failed, or somebody else committed meanwhile. Each repository has
                either its old version or the new one.
        """
        check_paths(self._bundle.id, files)
        changes = [
            self._repository(f"{self._bundle.id}-{task}").replace(extract_adapter(files, task), message=message)
            for task in bundled_tasks(files)
        ]
        bundle = self._bundle.replace(files, message=message)
        return PublishResult(
            f"{self._bundle.id}@{bundle.revision}", any(change.changed for change in (*changes, bundle))
        )

    def versions(self) -> list[str]:
        """Return the bundle's commits, the newest first; the oldest may be the hub's empty initial commit."""
        return self._bundle.revisions()

    def read(self, version: str) -> dict[str, bytes]:
        """Return the files of a commit.

        Raises:
            BadData: there is no such commit.
            Unreachable: the hub did not answer.
        """
        return self._bundle.read(version, self._bundle.names(version))
