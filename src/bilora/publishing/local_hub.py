"""A hub in a folder: every version is stored under its digest, and `current` points to one of them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bilora.errors import BadData
from bilora.locks import exclusive_lock, sync_folder
from bilora.protocols import PublishResult
from bilora.publishing.bundle import check_paths
from bilora.publishing.manifest import MANIFEST
from bilora.storage import atomic, read_json, sha256_bytes, sha256_tree, write_json


class LocalHub:
    """Publishes into a folder; implements `protocols.Hub`.

    `versions/DIGEST/` contains the files. The link `current` points to the current version; `current.json` names it
    for readers that cannot follow links, with the earlier versions. If they differ, the link is right: it is
    replaced by one rename, after the version is complete on disk.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def digest(self) -> str | None:
        """Return the digest of the current version, or None."""
        manifest = self._path / "current" / MANIFEST
        return sha256_bytes(manifest.read_bytes()) if manifest.is_file() else None

    def versions(self) -> list[str]:
        """Return the digests of the published versions, the newest first."""
        digests, link = _published_digests(self._path / "current.json"), self._path / "current"
        current = [link.readlink().name] if link.is_symlink() else []
        return digests if digests[:1] == current else current + digests

    def folder(self) -> Path | None:
        """Return the folder of the current version; None if nothing is published.

        Raises:
            BadData: the current version's folder does not exist.
        """
        versions = self.versions()
        if not versions:
            return None
        folder = self._path / "versions" / versions[0]
        if not folder.is_dir():
            raise BadData(self._path, f"its current version {versions[0]} does not exist; push again.")
        return folder

    def read(self, version: str) -> dict[str, bytes]:
        """Return the files of a version.

        Raises:
            BadData: there is no such version.
        """
        folder = self._path / "versions" / version
        if not version.isalnum() or not folder.is_dir():
            raise BadData(self._path, f"has no version {version}.")
        return {name: (folder / name).read_bytes() for name in sha256_tree(folder)}

    def publish(self, files: dict[str, bytes], *, message: str) -> PublishResult:
        """Publish `files`; publishing equal bytes again changes nothing.

        Raises:
            BadData: there is no manifest, or a path is not inside the folder.
        """
        check_paths(self._path, files)
        digest = sha256_bytes(files[MANIFEST])
        version = self._path / "versions" / digest
        changed = True
        self._path.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(self._path / ".lock"):
            before = self.versions()
            if not version.is_dir():
                self._store(version, files)
            elif sha256_tree(version) != {name: sha256_bytes(data) for name, data in sorted(files.items())}:
                _repair(version, files)
            else:
                changed = before[:1] != [digest]
            self._link_current(f"versions/{digest}")
            if _published_digests(self._path / "current.json")[:1] != [digest]:
                before = before[1:] if before[:1] == [digest] else before
                pointer = {"digest": digest, "path": f"versions/{digest}", "message": message, "before": before}
                write_json(self._path / "current.json", pointer)
        return PublishResult(str(version), changed)

    def _store(self, version: Path, files: Mapping[str, bytes]) -> None:
        version.parent.mkdir(exist_ok=True)
        for unfinished in version.parent.glob(".incoming-*"):  # of a killed process: this one has the lock
            shutil.rmtree(unfinished)
        incoming = Path(tempfile.mkdtemp(dir=version.parent, prefix=".incoming-"))
        try:
            incoming.chmod(0o755)
            for name, data in files.items():
                with atomic(incoming / name) as temporary:
                    temporary.write_bytes(data)
            for folder in (path for path in incoming.rglob("*") if path.is_dir()):
                sync_folder(folder)
            sync_folder(incoming)
            incoming.rename(version)
        except BaseException:
            shutil.rmtree(incoming, ignore_errors=True)
            raise
        sync_folder(version.parent)

    def _link_current(self, target: str) -> None:
        link = self._path / "current"
        if link.is_symlink() and os.readlink(link) == target:  # noqa: PTH115 - compared as it is written
            return
        if link.is_dir() and not link.is_symlink():
            raise BadData(link, "is a folder instead of a link. Move it away and push again.")
        new_link = self._path / ".current.new"
        new_link.unlink(missing_ok=True)
        new_link.symlink_to(target, target_is_directory=True)
        new_link.replace(link)
        sync_folder(self._path)


def _repair(version: Path, files: Mapping[str, bytes]) -> None:
    """Restore a version's files one by one, because readers may be using it."""
    for name, data in files.items():
        with atomic(version / name) as temporary:
            temporary.write_bytes(data)
    for name in sha256_tree(version).keys() - files.keys():
        (version / name).unlink()


def _published_digests(path: Path) -> list[str]:
    """Return the digests in current.json, the newest first."""
    try:
        pointer = read_json(path)
        return [str(pointer["digest"]), *map(str, pointer.get("before", []))]
    except (BadData, KeyError, TypeError, AttributeError):
        return []
