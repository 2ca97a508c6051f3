"""Which adapters are served: those that were trained here, or those of a published bundle."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bilora.cli import wiring
from bilora.errors import BadData, OtherBase, Unreachable
from bilora.storage import read_json

if TYPE_CHECKING:
    from bilora.params import Params


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
    """Return what changes when other adapters lie there; a bundle from the hub is pinned and never changes."""
    places = [wiring.ADAPTERS / name for name in params.tasks] if place is None else [Path(place)]
    manifests = [folder / "manifest.json" for folder in places]
    found = [one.stat() if one.exists() else None for one in manifests]
    return " ".join(f"{one.st_ino}.{one.st_mtime_ns}.{one.st_size}" if one else "-" for one in found)


def bundle(place: str, params: Params) -> dict[str, Path]:
    """Return the adapters' folders of a published bundle: a folder, or a hub id with `@` and a commit.

    Raises:
        BadData: it is no bundle, was made for another base, or its bytes are not those of its manifest.
        Unreachable: the hub did not give it.
    """
    from bilora.storage import sha256_file

    folder = Path(place)
    if not folder.is_dir():
        folder = _from_hub(place)
    manifest = read_json(folder / "manifest.json") if (folder / "manifest.json").is_file() else {}
    adapters = manifest.get("adapters") if isinstance(manifest, dict) else None
    if not (isinstance(adapters, dict) and isinstance(manifest.get("base"), dict) and "files" in manifest):
        raise BadData(folder, "this is no bundle: name a folder with a manifest.json, or a hub id@commit.")
    check_base(folder, manifest, params)
    for file, digest in manifest["files"].items():
        if not (folder / file).is_file() or sha256_file(folder / file) != digest:
            raise BadData(folder / file, "does not match the bundle's manifest; fetch it again.")
    return {name: folder / name for name in adapters if name in params.tasks}


def check_base(place: Path | str, manifest: Mapping[str, Any], params: Params) -> None:
    """Refuse a bundle for another base; one that no hub names travels in its bundle, and is known by its bytes.

    Raises:
        BadData: it is for another.
    """
    from bilora.inference.loading import base_files, base_revision, changed_files, folder_revision

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


def _from_hub(place: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    name, _, revision = place.partition("@")
    if not revision:
        raise BadData(place, "is no folder here, and a hub id needs a pinned commit: owner/name@commit.")
    try:
        return Path(snapshot_download(name, revision=revision))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise Unreachable(f"The bundle {place} could not be fetched ({type(error).__name__}).") from None
