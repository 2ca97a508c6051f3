"""A hub at any URL that fsspec can write to: every version under its digest, and a file that names the current one."""

from __future__ import annotations

import json

from bilora.errors import BadData, Unreachable
from bilora.protocols import PublishResult
from bilora.publishing.bundle import check_paths
from bilora.publishing.manifest import MANIFEST
from bilora.storage import dump_json, sha256_bytes

POINTER = "current.json"
_FAULTS = (OSError, NotImplementedError)


class UrlHub:
    """Publishes below a URL; implements `protocols.Hub`.

    `versions/DIGEST/` contains the files, and `current.json` names the current and the earlier versions. It
    is written last and moved into place, so readers see the old version or the new one. Stores have no
    locks: of two concurrent publications the later one becomes current.

    Raises:
        BadData: fsspec cannot write to this URL.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        try:
            self._store, self._root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise BadData(url, f"cannot be written to: {str(error).splitlines()[0]}") from None
        self._url = url

    def digest(self) -> str | None:
        """Return the digest of the published manifest, or None."""
        versions = self.versions()
        manifest = self._read_file(f"versions/{versions[0]}/{MANIFEST}") if versions else None
        return sha256_bytes(manifest) if manifest is not None else None

    def versions(self) -> list[str]:
        """Return the digests of the published versions, the newest first.

        Raises:
            BadData: current.json is damaged.
        """
        data = self._read_file(POINTER)
        if data is None:
            return []
        try:
            pointer = json.loads(data)
            return [str(pointer["digest"]), *map(str, pointer["before"])]
        except (ValueError, KeyError, TypeError):
            raise BadData(f"{self._url}/{POINTER}", "is damaged; restore it, or remove it and push again.") from None

    def read(self, version: str) -> dict[str, bytes]:
        """Return the files of a version.

        Raises:
            BadData: there is no such version.
            Unreachable: the store did not answer.
        """
        folder = f"{self._root}/versions/{version}"
        try:
            paths = self._store.find(folder) if version.isalnum() else []
        except _FAULTS as error:
            raise self._unreachable(error) from None
        if not paths:
            raise BadData(self._url, f"has no version {version}.")
        names = [str(path).rpartition(f"versions/{version}/")[2] for path in paths]
        return {name: self._read_file(f"versions/{version}/{name}") or b"" for name in sorted(names)}

    def publish(self, files: dict[str, bytes], *, message: str) -> PublishResult:
        """Publish `files`; publishing equal bytes again writes nothing.

        Raises:
            BadData: there is no manifest, or a path is not inside the folder.
            Unreachable: the store refused a file; the current version is still the old one.
        """
        check_paths(self._url, files)
        digest = sha256_bytes(files[MANIFEST])
        before = self.versions()
        changed = before[:1] != [digest]
        try:
            for name, data in files.items():
                if self._read_file(f"versions/{digest}/{name}") != data:
                    self._write(f"versions/{digest}/{name}", data)
                    changed = True
            if before[:1] != [digest]:
                pointer = {"digest": digest, "path": f"versions/{digest}", "message": message, "before": before}
                self._write(POINTER, (dump_json(pointer, indent=2) + "\n").encode())
        except _FAULTS as error:
            raise self._unreachable(error) from None
        return PublishResult(f"{self._url}/versions/{digest}", changed)

    def _write(self, name: str, data: bytes) -> None:
        target = f"{self._root}/{name}"
        self._store.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._store.pipe_file(f"{target}.new", data)
        self._store.mv(f"{target}.new", target)

    def _read_file(self, name: str) -> bytes | None:
        """Return a file's bytes; None if it does not exist."""
        try:
            data: bytes = self._store.cat_file(f"{self._root}/{name}")
            return data
        except FileNotFoundError:
            return None
        except _FAULTS as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(f"{self._url} could not be read or written ({type(error).__name__}). Push again.")
