"""A hub that is a folder: every version is kept under its digest, `current` points at one of them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from bilora.errors import BadData
from bilora.publishing.bundle import MANIFEST
from bilora.storage import atomic, read_json, sha256_bytes, sha256_tree, write_json


class LocalHub:
    """Publishes into a folder; implements `ports.Hub`.

    `versions/DIGEST/` holds the files, the link `current` leads to what is served, and
    `current.json` says the same for readers that cannot follow links. The link decides:
    it is replaced by one rename, after the version is complete on disk.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def digest(self) -> str | None:
        """Return the digest of what `current` leads to, or None."""
        manifest = self._path / "current" / MANIFEST
        return sha256_bytes(manifest.read_bytes()) if manifest.is_file() else None

    def publish(self, files: dict[str, bytes], *, message: str) -> str:
        """Serve `files` from now on; equal bytes again change nothing.

        Raises:
            BadData: there is no manifest, or a path would leave the folder.
        """
        if MANIFEST not in files:
            raise BadData(self._path, f"a bundle without {MANIFEST} cannot be published.")
        for name in files:
            parts = PurePosixPath(name).parts
            if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\\" in name:
                raise BadData(self._path, f"the bundle names {name!r}, which is no path inside it.")
        digest = sha256_bytes(files[MANIFEST])
        version = self._path / "versions" / digest
        with self._lock():
            if not version.is_dir():
                self._store(version, files)
            elif sha256_tree(version) != {name: sha256_bytes(data) for name, data in sorted(files.items())}:
                _repair(version, files)
            self._point(f"versions/{digest}")
            if _pointed(self._path / "current.json") != digest:
                pointer = {"digest": digest, "path": f"versions/{digest}", "message": message}
                write_json(self._path / "current.json", pointer)
        return str(version)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        self._path.mkdir(parents=True, exist_ok=True)
        with (self._path / ".lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _store(self, version: Path, files: Mapping[str, bytes]) -> None:
        version.parent.mkdir(exist_ok=True)
        for left in version.parent.glob(".incoming-*"):  # of a publish that was killed; the lock is ours
            shutil.rmtree(left)
        incoming = Path(tempfile.mkdtemp(dir=version.parent, prefix=".incoming-"))
        incoming.chmod(0o755)
        for name, data in files.items():
            with atomic(incoming / name) as temporary:
                temporary.write_bytes(data)
        for folder in (path for path in incoming.rglob("*") if path.is_dir()):
            _sync(folder)
        _sync(incoming)
        incoming.rename(version)
        _sync(version.parent)

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
        _sync(self._path)


def _repair(version: Path, files: Mapping[str, bytes]) -> None:
    """Put back, file by file, what its digest promises; it may be served at this moment."""
    for name, data in files.items():
        with atomic(version / name) as temporary:
            temporary.write_bytes(data)
    for name in sha256_tree(version).keys() - files.keys():
        (version / name).unlink()


def _pointed(path: Path) -> str | None:
    try:
        return str(read_json(path)["digest"])
    except (BadData, KeyError, TypeError):
        return None


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
