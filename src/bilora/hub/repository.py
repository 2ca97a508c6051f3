"""One repository of the hub: what it holds, and how it changes by whole commits."""

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
from bilora.hub.client import FAULTS, http_status, unreachable, why
from bilora.storage import sha256_bytes

RepositoryType = Literal["model", "dataset", "space"]
MAIN = "main"
_HUB_FILES = frozenset({".gitattributes"})
"""The hub's own files: neither read as content nor removed."""
LOST_RACE = (409, 412)


@dataclass(frozen=True)
class Change:
    """The commit that now holds what was asked for, and whether it had to be made."""

    revision: str
    changed: bool


@dataclass(frozen=True)
class State:
    """A commit and its files, each by the name that its content has there."""

    revision: str
    files: Mapping[str, RepoFile]


class Repository:
    """A model, dataset or Space repository; its branch `main` is what is served.

    Args:
        api: see `hub.client.connect`.
        repo_id: `owner/name`.
        kind: of the repository.
        private: how it is created, if it is not there yet.
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
        """Return the commit that is served, or None if there is no such repository.

        Raises:
            Unreachable: the hub did not say.
        """
        try:
            return self._head()
        except FAULTS as error:
            raise unreachable(self.id, error) from None

    def names(self, revision: str) -> list[str]:
        """Return the paths of a commit's files, sorted; of anything else, raise as `read` does."""
        try:
            return sorted(self._state(revision).files)
        except FAULTS as error:
            raise self._unread(revision, error) from None

    def read(self, revision: str, names: Collection[str]) -> dict[str, bytes]:
        """Return files of a commit; a name that is not in it is left out.

        Raises:
            BadData: there is no such commit.
            Unreachable: the hub did not give them.
        """
        found = {}
        for name in names:
            with tempfile.TemporaryDirectory() as folder:  # the client's cache would outlive us
                try:
                    path = self._api.hf_hub_download(
                        self.id, name, repo_type=self._kind, revision=revision, local_dir=folder
                    )
                    found[name] = Path(path).read_bytes()
                except RemoteEntryNotFoundError:
                    continue
                except FAULTS as error:
                    raise self._unread(revision, error) from None
        return found

    def revisions(self) -> list[str]:
        """Return the commits that led to what is served, the newest first; none if there is no repository."""
        try:
            commits = self._api.list_repo_commits(self.id, repo_type=self._kind)
        except RepositoryNotFoundError:
            return []
        except FAULTS as error:
            raise unreachable(self.id, error) from None
        return [commit.commit_id for commit in commits]

    def replace(self, files: Mapping[str, bytes], *, message: str) -> Change:
        """Make the repository hold exactly `files` in one commit; none is made if it already does.

        A commit is bound to its parent. If another came first, or the answer was lost, the repository
        is read again: it holds what was asked for, or the error says what it holds.

        Raises:
            Unreachable: the hub did not take it, or somebody else was first; the repository is
                wholly as it was, or wholly as they left it.
        """
        return self._change(files, None, message, tries=1)

    def update(self, add: Mapping[str, bytes], remove: Collection[str], *, message: str, tries: int = 3) -> Change:
        """Add and remove some files in one commit, on top of whatever is there; see `replace`.

        For changes that commute with everybody else's, so a lost race is run again.
        """
        return self._change(add, remove, message, tries=tries)

    def _change(self, add: Mapping[str, bytes], remove: Collection[str] | None, message: str, *, tries: int) -> Change:
        before: State | None = None
        try:
            before = self._found_or_created()
            if operations := _operations(before, add, remove):
                made = self._api.create_commit(
                    self.id, operations, commit_message=message, repo_type=self._kind, parent_commit=before.revision
                )
                return Change(made.oid, True)
            return Change(before.revision, False)
        except FAULTS as error:
            fault = error
        try:
            after = self._state(MAIN)
        except FAULTS:
            raise Unreachable(
                f"{self.id} did not take the commit, or did not say so ({why(fault)}). "
                "Do it again: what is there already is left as it is."
            ) from None
        if not _operations(after, add, remove):
            return Change(after.revision, True)
        if before is None or after.revision == before.revision:
            raise Unreachable(f"{self.id} did not take the commit ({why(fault)}) and is as before. Try again.")
        if tries > 1 and http_status(fault) in LOST_RACE:
            return self._change(add, remove, message, tries=tries - 1)
        raise Unreachable(
            f"{self.id} was changed by somebody else meanwhile and is at {after.revision[:12]} now; "
            "nothing was written over it. Look at it, then do it again."
        )

    def _found_or_created(self) -> State:
        if self._head() is None:
            sdk = "docker" if self._kind == "space" else None
            self._api.create_repo(self.id, repo_type=self._kind, private=self._private, space_sdk=sdk, exist_ok=True)
        return self._state(MAIN)

    def _head(self) -> str | None:
        try:
            info = self._api.repo_info(self.id, repo_type=self._kind, revision=MAIN)
        except RepositoryNotFoundError:
            return None
        return str(info.sha)

    def _state(self, revision: str) -> State:
        info = self._api.repo_info(self.id, repo_type=self._kind, revision=revision)
        tree = self._api.list_repo_tree(self.id, recursive=True, revision=info.sha, repo_type=self._kind)
        files = {one.path: one for one in tree if isinstance(one, RepoFile) and one.path not in _HUB_FILES}
        return State(str(info.sha), files)

    def _unread(self, revision: str, error: Exception) -> BadData | Unreachable:
        if isinstance(error, RevisionNotFoundError):
            return BadData(self.id, f"has no commit {revision}.")
        return unreachable(f"{self.id}@{revision[:12]}", error)


def _operations(
    state: State, add: Mapping[str, bytes], remove: Collection[str] | None
) -> list[CommitOperationAdd | CommitOperationDelete]:
    """Return what is missing; `remove` None removes all that is not added."""
    fresh = [name for name, data in sorted(add.items()) if not _same(state.files.get(name), data)]
    stale = sorted((set(state.files) - set(add)) if remove is None else set(remove).intersection(state.files))
    return [
        *(CommitOperationDelete(name, is_folder=False) for name in stale),
        *(CommitOperationAdd(name, add[name]) for name in fresh),
    ]


def _same(there: RepoFile | None, data: bytes) -> bool:
    """Whether a file of the hub has these bytes: it names a large one by SHA-256, any other as git does."""
    if there is None or there.size != len(data):
        return False
    if there.lfs is not None:
        return there.lfs.sha256 == sha256_bytes(data)
    return there.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
