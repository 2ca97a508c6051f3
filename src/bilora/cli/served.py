"""Which adapters are served: those that were trained here, or those of a published bundle."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from bilora.cli import wiring
from bilora.errors import BadData, OtherBase, Unreachable
from bilora.storage import read_json

if TYPE_CHECKING:
    from bilora.params import Params

FETCHED = Path(".cache/bundles")
MANIFEST = "manifest.json"


def folders(params: Params, place: str | None, *, asked: str | None = None) -> dict[str, Path]:
    """Return the folders of the adapters to serve: those of a bundle, else all that were trained here for this base.

    Adapters of another base or chat template are left out and reported, so that the base and the others answer.

    Args:
        asked: the one that is to answer; if it is for another base, that is an error.
    """
    if place is not None:
        return bundle(place, params)
    fitting = {}
    for name in params.tasks:
        if (wiring.ADAPTERS / name).exists():
            try:
                fitting[name] = wiring.adapter(params, name)
            except OtherBase as fault:
                if name == asked:
                    raise
                print(f"left out: {fault}", file=sys.stderr)
    return fitting


def mark(params: Params, place: str | None) -> str:
    """Return what changes when other adapters are there; a bundle that is fetched is pinned and never changes."""
    if place is None:
        places = [wiring.ADAPTERS / name for name in params.tasks]
    else:
        places = [_published(Path(place)) or Path(place)]
    manifests = [folder / MANIFEST for folder in places]
    found = [(one.parent.name, one.stat()) if one.exists() else None for one in manifests]
    return " ".join(f"{one[0]}.{one[1].st_ino}.{one[1].st_mtime_ns}.{one[1].st_size}" if one else "-" for one in found)


def bundle(place: str, params: Params) -> dict[str, Path]:
    """Return the adapters' folders of a published bundle.

    Args:
        place: a bundle's folder, the folder or the URL that `push-adapters` publishes into, whose served
            version is taken, or a hub id with `@` and a commit.

    Raises:
        BadData: it is no bundle, was made for another base, or its bytes are not those of its manifest.
        Unreachable: the hub did not give it.
    """
    from bilora.storage import sha256_file

    folder = _folder(place)
    manifest = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else None
    if not _is_manifest(manifest):
        raise BadData(
            place,
            "this is no bundle: name a folder with a manifest.json, the folder or URL that `bilora push-adapters` "
            "publishes into, or a hub id@commit.",
        )
    check_base(folder, manifest, params)
    for file, digest in manifest["files"].items():
        if not (folder / file).is_file() or sha256_file(folder / file) != digest:
            raise BadData(folder / file, "does not match the bundle's manifest; fetch it again.")
    return {name: folder / name for name in manifest["adapters"] if name in params.tasks}


def _is_manifest(manifest: Any) -> TypeGuard[Mapping[str, Any]]:
    parts = ("adapters", "base", "files")
    return isinstance(manifest, dict) and all(isinstance(manifest.get(part), dict) for part in parts)


def check_base(place: Path | str, manifest: Mapping[str, Any], params: Params) -> None:
    """Refuse a bundle for another base; one that no hub names travels in its bundle, and is known by its bytes.

    Raises:
        BadData: it is for another.
    """
    from bilora.bases.loading import base_files, base_revision, changed_files, folder_revision

    told, base = manifest["base"], params.base
    if (told.get("id"), told.get("revision")) != (base.id, base.revision):
        asked, made_for = (" at ".join(filter(None, one)) for one in (
            (base.id, base.revision), (str(told.get("id")), told.get("revision"))
        ))  # fmt: skip
        raise BadData(place, f"its adapters were made for {made_for}, not for {asked}.")
    folder = f"{told.get('path')}/"
    carried = {name.removeprefix(folder): one for name, one in manifest["files"].items() if name.startswith(folder)}
    if base.local and folder_revision(carried) != base_revision(base):
        version = f"another version of {base.id} than the one here"
        which = f" (other: {changed_files(carried, base_files(base))})" if carried else ""
        raise BadData(place, f"its adapters were made for {version}{which}; take a newer bundle.")


def _folder(place: str) -> Path:
    folder = Path(place)
    if folder.is_dir():
        return _published(folder) or folder
    return _from_url(place) if "://" in place else _from_hub(place)


def _published(folder: Path) -> Path | None:
    """Return the version that a folder of publications serves; None if the folder is none, or is a bundle itself."""
    from bilora.publishing.local_hub import LocalHub

    return None if (folder / MANIFEST).is_file() else LocalHub(folder).folder()


def _from_url(place: str) -> Path:
    """Fetch the version that a URL serves, into a folder of its own name."""
    from bilora.publishing.bundle import check_paths
    from bilora.publishing.url_hub import UrlHub
    from bilora.storage import atomic

    hub = UrlHub(place)
    if not (versions := hub.versions()):
        raise BadData(place, "nothing was published there; `bilora push-adapters` publishes.")
    files = hub.read(versions[0])
    check_paths(place, files)
    for name, data in files.items():
        with atomic(FETCHED / versions[0] / name) as temporary:
            temporary.write_bytes(data)
    return FETCHED / versions[0]


def _from_hub(place: str) -> Path:
    from huggingface_hub import snapshot_download

    from bilora.hub.client import FAULTS, why

    name, _, revision = place.partition("@")
    if not revision or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise BadData(place, "is no folder here, and a hub id needs a pinned commit: owner/name@commit.")
    try:
        return Path(snapshot_download(name, revision=revision))
    except FAULTS as error:
        raise Unreachable(f"The bundle {place} could not be fetched ({why(error)}).") from None
