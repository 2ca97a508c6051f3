"""Open a published bundle in a folder, at a URL, or on the hub."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from bilora.bases.base import Base
from bilora.bases.compatibility import check_bundle
from bilora.errors import BadData
from bilora.hub.snapshot import pinned_snapshot
from bilora.publishing.bundle import check_paths
from bilora.publishing.manifest import MANIFEST, Manifest
from bilora.storage import atomic, read_json, sha256_file


def open_bundle(location: str, base: Base, *, cache_dir: Path) -> dict[str, Path]:
    """Return the adapters' folders of a published bundle, by task.

    Args:
        location: a bundle's folder, a folder or URL that `push-adapters` publishes to (its current version is
            opened), or hub id@commit.
        cache_dir: the folder for bundles from URLs.

    Raises:
        BadData: it is not a bundle, its adapters were trained on another base, or a file does not match its manifest.
        Unreachable: the hub or the store did not answer.
    """
    folder, manifest = fetch_bundle(location, cache_dir=cache_dir)
    return bundled_adapters(folder, manifest, base)


def fetch_bundle(location: str, *, cache_dir: Path) -> tuple[Path, Manifest]:
    """Return the folder and the manifest of a published bundle, see `open_bundle`; its files are not checked.

    Raises:
        BadData: it is not a bundle.
        Unreachable: the hub or the store did not answer.
    """
    folder = _folder(location, cache_dir)
    manifest = _manifest(folder / MANIFEST)
    if manifest is None:
        raise BadData(
            location,
            "is not a bundle: name a folder with a manifest.json, the folder or URL that `bilora push-adapters` "
            "publishes to, or hub id@commit.",
        )
    return folder, manifest


def bundled_adapters(folder: Path, manifest: Manifest, base: Base) -> dict[str, Path]:
    """Return the adapters' folders of a fetched bundle, by task, after checking every file.

    Raises:
        BadData: the adapters were trained on another base, or a file does not match the manifest.
    """
    check_bundle(folder, manifest.model_dump(exclude_unset=True), base)
    for file, digest in manifest.files.items():
        if not (folder / file).is_file() or sha256_file(folder / file) != digest:
            raise BadData(folder / file, "does not match the bundle's manifest; fetch it again.")
    return {name: folder / name for name in manifest.adapters}


def current_version(folder: Path) -> Path | None:
    """Return the current version in a `LocalHub`'s folder; None for any other folder."""
    from bilora.publishing.local_hub import LocalHub

    return None if (folder / MANIFEST).is_file() else LocalHub(folder).folder()


def _manifest(path: Path) -> Manifest | None:
    """Return a bundle's manifest; None if the file is absent or another kind of manifest, such as an adapter's."""
    try:
        return Manifest.model_validate(read_json(path)) if path.is_file() else None
    except ValidationError:
        return None


def _folder(location: str, cache_dir: Path) -> Path:
    folder = Path(location)
    if folder.is_dir():
        return current_version(folder) or folder
    return _fetch_url(location, cache_dir) if "://" in location else pinned_snapshot(location)


def _fetch_url(url: str, cache_dir: Path) -> Path:
    """Download the current version at a URL into a folder with the version's name."""
    from bilora.publishing.url_hub import UrlHub

    hub = UrlHub(url)
    if not (versions := hub.versions()):
        raise BadData(url, "nothing is published at this URL; `bilora push-adapters` publishes.")
    files = hub.read(versions[0])
    check_paths(url, files)
    for name, data in files.items():
        with atomic(cache_dir / versions[0] / name) as temporary:
            temporary.write_bytes(data)
    return cache_dir / versions[0]
