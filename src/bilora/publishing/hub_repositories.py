"""The Hugging Face hub as a place to publish: the bundle, and each adapter alone for servers that want it so."""

from __future__ import annotations

from collections.abc import Callable

from bilora.hub.repository import Repository
from bilora.protocols import PublishResult
from bilora.publishing.bundle import bundled_tasks, check_paths, extract_adapter
from bilora.publishing.manifest import MANIFEST
from bilora.storage import sha256_bytes


class HubRepositories:
    """Publishes into `owner/name` and `owner/name-TASK`; implements `protocols.Hub`.

    The bundle's repository is the one that counts: its commits are the versions. It is written last,
    so when it serves a version the others do too; a push that broke off before is completed by the
    next one, which commits only where bytes differ.

    Args:
        repository: opens a repository by its id.
        repo_id: of the bundle.
    """

    def __init__(self, repository: Callable[[str], Repository], repo_id: str) -> None:
        self._repository, self._bundle = repository, repository(repo_id)

    def digest(self) -> str | None:
        """Return the digest of the manifest that is served, or None."""
        head = self._bundle.head()
        manifest = self._bundle.read(head, [MANIFEST]).get(MANIFEST) if head else None
        return sha256_bytes(manifest) if manifest is not None else None

    def publish(self, files: dict[str, bytes], *, message: str) -> PublishResult:
        """Serve `files` from now on, one commit a repository; the location names the bundle's commit.

        Raises:
            BadData: there is no manifest, or a path would leave the repository.
            Unreachable: a repository did not take it, or somebody else changed it meanwhile. Each is
                wholly old or wholly new.
        """
        check_paths(self._bundle.id, files)
        thins = [
            self._repository(f"{self._bundle.id}-{task}").replace(extract_adapter(files, task), message=message)
            for task in bundled_tasks(files)
        ]
        bundle = self._bundle.replace(files, message=message)
        return PublishResult(f"{self._bundle.id}@{bundle.revision}", any(one.changed for one in (*thins, bundle)))

    def versions(self) -> list[str]:
        """Return the bundle's commits, the newest first; the oldest may be the hub's own and empty."""
        return self._bundle.revisions()

    def read(self, version: str) -> dict[str, bytes]:
        """Return the files of a commit.

        Raises:
            BadData: there is no such commit.
            Unreachable: the hub did not give them.
        """
        return self._bundle.read(version, self._bundle.names(version))
