"""A hub that is a folder: every version is kept under its digest, `current` points at one of them."""

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

    `versions/DIGEST/` holds the files, the link `current` leads to what is served, and
    `current.json` says the same for readers that cannot follow links, and what was served before. The link decides:
    it is replaced by one rename, after the version is complete on disk.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def digest(self) -> str | None:
        """Return the digest of what `current` leads to, or None."""
        manifest = self._path / "current" / MANIFEST
        return sha256_bytes(manifest.read_bytes()) if manifest.is_file() else None

    def versions(self) -> list[str]:
        """Return the digests of what was served, the newest first."""
        digests, link = _served_digests(self._path / "current.json"), self._path / "current"
        served = [link.readlink().name] if link.is_symlink() else []
        return digests if digests[:1] == served else served + digests

    def folder(self) -> Path | None:
        """Return the folder of the version that is served, or None if nothing is.

        Raises:
            BadData: the version that is named is not there.
        """
        versions = self.versions()
        if not versions:
            return None
        folder = self._path / "versions" / versions[0]
        if not folder.is_dir():
            raise BadData(self._path, f"has no version {versions[0]}, which it names as served; push again.")
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
        """Serve `files` from now on; equal bytes again change nothing.

        Raises:
            BadData: there is no manifest, or a path would leave the folder.
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
            self._point(f"versions/{digest}")
            if _served_digests(self._path / "current.json")[:1] != [digest]:
                before = before[1:] if before[:1] == [digest] else before
                pointer = {"digest": digest, "path": f"versions/{digest}", "message": message, "before": before}
                write_json(self._path / "current.json", pointer)
        return PublishResult(str(version), changed)

    def _store(self, version: Path, files: Mapping[str, bytes]) -> None:
        version.parent.mkdir(exist_ok=True)
        for left in version.parent.glob(".incoming-*"):  # of a publish that was killed; the lock is ours
            shutil.rmtree(left)
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

    def _point(self, target: str) -> None:
        link = self._path / "current"
        if link.is_symlink() and os.readlink(link) == target:  # noqa: PTH115 - compared as it is written
            return
        if link.is_dir() and not link.is_symlink():
            raise BadData(link, "a folder where a link belongs. Move it away and push again.")
        fresh = self._path / ".current.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target, target_is_directory=True)
        fresh.replace(link)
        sync_folder(self._path)


def _repair(version: Path, files: Mapping[str, bytes]) -> None:
    """Put back, file by file, what its digest promises; it may be served at this moment."""
    for name, data in files.items():
        with atomic(version / name) as temporary:
            temporary.write_bytes(data)
    for name in sha256_tree(version).keys() - files.keys():
        (version / name).unlink()


def _served_digests(path: Path) -> list[str]:
    """Return the digests that the pointer names, the newest first."""
    try:
        pointer = read_json(path)
        return [str(pointer["digest"]), *map(str, pointer.get("before", []))]
    except (BadData, KeyError, TypeError, AttributeError):
        return []
