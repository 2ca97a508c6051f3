"""Read a hub repository, and change it by atomic commits."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import RemoteEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from bilora.errors import BadData, Unreachable
from bilora.hub.client import HUB_ERRORS, describe_error, http_status, unreachable
from bilora.storage import sha256_bytes

RepositoryType = Literal["model", "dataset", "space"]
MAIN = "main"
_HUB_FILES = frozenset({".gitattributes"})
"""Files that the hub itself writes: neither read as content nor removed."""
_CONFLICT_STATUSES = (409, 412)


@dataclass(frozen=True)
class CommitResult:
    """The commit that has the requested files, and whether it is new."""

    revision: str
    changed: bool


@dataclass(frozen=True)
class _Snapshot:
    """A commit and its files by path."""

    revision: str
    files: Mapping[str, RepoFile]


class Repository:
    """The branch `main` of a model, dataset or Space repository.

    Args:
        api: see `hub.client.connect`.
        repo_id: `owner/name`.
        private: whether the repository is created as private, if it does not exist.
    """

    def __init__(
        self,
        api: HfApi,
        repo_id: str,
        kind: RepositoryType = "model",
        *,
        private: bool = False,
    ) -> None:
        self.id = repo_id
        self._api, self._kind, self._private = api, kind, private

    def head(self) -> str | None:
        """Return the newest commit, or None if the repository does not exist.

        Raises:
            Unreachable: the hub did not respond.
        """
        try:
            return self._head()
        except HUB_ERRORS as error:
            raise unreachable(self.id, error) from None

    def names(self, revision: str) -> list[str]:
        """Return the sorted paths of a commit's files.

        Raises:
            BadData, Unreachable: see `read`.
        """
        try:
            return sorted(self._snapshot(revision).files)
        except HUB_ERRORS as error:
            raise self._read_error(revision, error) from None

    def read(self, revision: str, names: Collection[str]) -> dict[str, bytes]:
        """Return files of a commit by path; paths that do not exist are skipped.

        Raises:
            BadData: the commit does not exist.
            Unreachable: the files could not be downloaded.
        """
        files = {}
        for name in names:
            with tempfile.TemporaryDirectory() as folder:  # leaves nothing in the client's cache
                try:
                    path = self._api.hf_hub_download(
                        self.id, name, repo_type=self._kind, revision=revision, local_dir=folder
                    )
                    files[name] = Path(path).read_bytes()
                except RemoteEntryNotFoundError:
                    continue
                except HUB_ERRORS as error:
                    raise self._read_error(revision, error) from None
        return files

    def revisions(self) -> list[str]:
        """Return the commits of `main`, newest first; an empty list if the repository does not exist."""
        try:
            commits = self._api.list_repo_commits(self.id, repo_type=self._kind)
        except RepositoryNotFoundError:
            return []
        except HUB_ERRORS as error:
            raise unreachable(self.id, error) from None
        return [commit.commit_id for commit in commits]

    def replace(self, files: Mapping[str, bytes], *, message: str) -> CommitResult:
        """Commit exactly `files`; make no commit if the repository already equals them.

        The commit names its parent, so it fails if another commit came first. After a failure the repository is read
        again: it equals `files`, or the error describes its state.

        Raises:
            Unreachable: the hub rejected the commit, or another one came first; none of its files is there.
        """
        return self._change(files, None, message, attempts=1)

    def update(
        self, add: Mapping[str, bytes], remove: Collection[str], *, message: str, attempts: int = 3
    ) -> CommitResult:
        """Add and remove some files in one commit on top of the newest one; see `replace`.

        If another commit comes first, this one is tried again on top of it.
        """
        return self._change(add, remove, message, attempts=attempts)

    def _change(
        self, add: Mapping[str, bytes], remove: Collection[str] | None, message: str, *, attempts: int
    ) -> CommitResult:
        # 1) Commit the difference to the newest state.
        before: _Snapshot | None = None
        try:
            before = self._create_if_absent()
            if operations := _operations(before, add, remove):
                commit = self._api.create_commit(
                    self.id, operations, commit_message=message, repo_type=self._kind, parent_commit=before.revision
                )
                return CommitResult(commit.oid, True)
            return CommitResult(before.revision, False)
        except HUB_ERRORS as error:
            fault = error
        # 2) After a failure, read the repository: the commit may have arrived although the response was lost.
        try:
            after = self._snapshot(MAIN)
        except HUB_ERRORS:
            raise Unreachable(
                f"It is unknown whether {self.id} accepted the commit ({describe_error(fault)}). "
                "Run this again; a commit that arrived is not repeated."
            ) from None
        if not _operations(after, add, remove):
            return CommitResult(after.revision, True)
        # 3) It did not arrive: try again on top of another commit, or report why.
        if before is None or after.revision == before.revision:
            raise Unreachable(f"{self.id} rejected the commit ({describe_error(fault)}) and is unchanged. Try again.")
        if attempts > 1 and http_status(fault) in _CONFLICT_STATUSES:
            return self._change(add, remove, message, attempts=attempts - 1)
        raise Unreachable(
            f"{self.id} was changed by somebody else meanwhile, to {after.revision[:12]}; "
            "nothing was overwritten. Check that commit, then run this again."
        )

    def _create_if_absent(self) -> _Snapshot:
        if self._head() is None:
            sdk = "docker" if self._kind == "space" else None
            self._api.create_repo(self.id, repo_type=self._kind, private=self._private, space_sdk=sdk, exist_ok=True)
        return self._snapshot(MAIN)

    def _head(self) -> str | None:
        try:
            info = self._api.repo_info(self.id, repo_type=self._kind, revision=MAIN)
        except RepositoryNotFoundError:
            return None
        return str(info.sha)

    def _snapshot(self, revision: str) -> _Snapshot:
        info = self._api.repo_info(self.id, repo_type=self._kind, revision=revision)
        tree = self._api.list_repo_tree(self.id, recursive=True, revision=info.sha, repo_type=self._kind)
        files = {file.path: file for file in tree if isinstance(file, RepoFile) and file.path not in _HUB_FILES}
        return _Snapshot(str(info.sha), files)

    def _read_error(self, revision: str, error: Exception) -> BadData | Unreachable:
        if isinstance(error, RevisionNotFoundError):
            return BadData(self.id, f"has no commit {revision}.")
        return unreachable(f"{self.id}@{revision[:12]}", error)


def _operations(
    snapshot: _Snapshot, add: Mapping[str, bytes], remove: Collection[str] | None
) -> list[CommitOperationAdd | CommitOperationDelete]:
    """Return the operations that are needed; `remove` None removes all files that are not in `add`."""
    changed = [name for name, data in sorted(add.items()) if not _is_equal(snapshot.files.get(name), data)]
    removed = sorted((set(snapshot.files) - set(add)) if remove is None else set(remove).intersection(snapshot.files))
    return [
        *(CommitOperationDelete(name, is_folder=False) for name in removed),
        *(CommitOperationAdd(name, add[name]) for name in changed),
    ]


def _is_equal(file: RepoFile | None, data: bytes) -> bool:
    """Return whether a hub file has these bytes, by its LFS SHA-256 or its git blob id."""
    if file is None or file.size != len(data):
        return False
    if file.lfs is not None:
        return file.lfs.sha256 == sha256_bytes(data)
    return file.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
