"""A published bundle, opened wherever it is: a folder, a URL, or the hub."""

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


def open_bundle(place: str, base: Base, *, cache: Path) -> dict[str, Path]:
    """Return the adapters' folders of a published bundle, by task.

    Args:
        place: a bundle's folder, the folder or the URL that `push-adapters` publishes into, whose served
            version is taken, or a hub id with `@` and a commit.
        cache: where a bundle that a URL serves is kept.

    Raises:
        BadData: it is no bundle, was made for another base, or its bytes are not those of its manifest.
        Unreachable: the hub did not give it.
    """
    folder, manifest = fetch_bundle(place, cache=cache)
    return bundled_adapters(folder, manifest, base)


def fetch_bundle(place: str, *, cache: Path) -> tuple[Path, Manifest]:
    """Return the folder and the manifest of a published bundle; see `open_bundle`. No file is checked yet.

    Raises:
        BadData: it is no bundle.
        Unreachable: the hub did not give it.
    """
    folder = _folder(place, cache)
    manifest = _manifest(folder / MANIFEST)
    if manifest is None:
        raise BadData(
            place,
            "this is no bundle: name a folder with a manifest.json, the folder or URL that `bilora push-adapters` "
            "publishes into, or a hub id@commit.",
        )
    return folder, manifest


def bundled_adapters(folder: Path, manifest: Manifest, base: Base) -> dict[str, Path]:
    """Return the adapters' folders of a fetched bundle, by task, after every file was checked.

    Raises:
        BadData: it was made for another base, or its bytes are not those of its manifest.
    """
    check_bundle(folder, manifest.model_dump(exclude_unset=True), base)
    for file, digest in manifest.files.items():
        if not (folder / file).is_file() or sha256_file(folder / file) != digest:
            raise BadData(folder / file, "does not match the bundle's manifest; fetch it again.")
    return {name: folder / name for name in manifest.adapters}


def current_version(folder: Path) -> Path | None:
    """Return the version that a folder of publications serves; None if the folder is none, or is a bundle itself."""
    from bilora.publishing.local_hub import LocalHub

    return None if (folder / MANIFEST).is_file() else LocalHub(folder).folder()


def _manifest(path: Path) -> Manifest | None:
    """Return a bundle's manifest; None if the file is absent or another manifest, such as a trained adapter's."""
    try:
        return Manifest.model_validate(read_json(path)) if path.is_file() else None
    except ValidationError:
        return None


def _folder(place: str, cache: Path) -> Path:
    folder = Path(place)
    if folder.is_dir():
        return current_version(folder) or folder
    return _from_url(place, cache) if "://" in place else pinned_snapshot(place)


def _from_url(place: str, cache: Path) -> Path:
    """Fetch the version that a URL serves, into a folder of its own name."""
    from bilora.publishing.url_hub import UrlHub

    hub = UrlHub(place)
    if not (versions := hub.versions()):
        raise BadData(place, "nothing was published there; `bilora push-adapters` publishes.")
    files = hub.read(versions[0])
    check_paths(place, files)
    for name, data in files.items():
        with atomic(cache / versions[0] / name) as temporary:
            temporary.write_bytes(data)
    return cache / versions[0]
