"""Any store that fsspec can write to: every version under its digest, one small file says which is served."""

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

    `versions/DIGEST/` holds the files and `current.json` names what is served and what was before. It
    is written last and moved into place, so a reader finds the old version or the new one. Stores have
    no locks: of two that publish at once the later one is served, whole.

    Raises:
        BadData: fsspec cannot write to such a URL here.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        try:
            self._store, self._root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise BadData(url, f"cannot be written to: {str(error).splitlines()[0]}") from None
        self._url = url

    def digest(self) -> str | None:
        """Return the digest of the manifest that is served, or None."""
        versions = self.versions()
        manifest = self._cat(f"versions/{versions[0]}/{MANIFEST}") if versions else None
        return sha256_bytes(manifest) if manifest is not None else None

    def versions(self) -> list[str]:
        """Return the digests of what was served, the newest first.

        Raises:
            BadData: the pointer is damaged.
        """
        data = self._cat(POINTER)
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
            Unreachable: the store did not give it.
        """
        folder = f"{self._root}/versions/{version}"
        try:
            found = self._store.find(folder) if version.isalnum() else []
        except _FAULTS as error:
            raise self._silent(error) from None
        if not found:
            raise BadData(self._url, f"has no version {version}.")
        names = [str(path).rpartition(f"versions/{version}/")[2] for path in found]
        return {name: self._cat(f"versions/{version}/{name}") or b"" for name in sorted(names)}

    def publish(self, files: dict[str, bytes], *, message: str) -> PublishResult:
        """Serve `files` from now on; equal bytes again write nothing.

        Raises:
            BadData: there is no manifest, or a path would leave the folder.
            Unreachable: the store did not take it; what was served still is.
        """
        check_paths(self._url, files)
        digest = sha256_bytes(files[MANIFEST])
        before = self.versions()
        changed = before[:1] != [digest]
        try:
            for name, data in files.items():
                if self._cat(f"versions/{digest}/{name}") != data:
                    self._write(f"versions/{digest}/{name}", data)
                    changed = True
            if before[:1] != [digest]:
                pointer = {"digest": digest, "path": f"versions/{digest}", "message": message, "before": before}
                self._write(POINTER, (dump_json(pointer, indent=2) + "\n").encode())
        except _FAULTS as error:
            raise self._silent(error) from None
        return PublishResult(f"{self._url}/versions/{digest}", changed)

    def _write(self, name: str, data: bytes) -> None:
        target = f"{self._root}/{name}"
        self._store.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._store.pipe_file(f"{target}.new", data)
        self._store.mv(f"{target}.new", target)

    def _cat(self, name: str) -> bytes | None:
        """Return a file's bytes, or None if it is not there."""
        try:
            data: bytes = self._store.cat_file(f"{self._root}/{name}")
            return data
        except FileNotFoundError:
            return None
        except _FAULTS as error:
            raise self._silent(error) from None

    def _silent(self, error: Exception) -> Unreachable:
        return Unreachable(f"{self._url} could not be read or written ({type(error).__name__}). Push again.")
