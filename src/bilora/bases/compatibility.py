"""Whether an adapter, or a bundle of adapters, was made for just this base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bilora.bases.base import Base
from bilora.bases.identity import changed_files, pinned_by
from bilora.errors import BadData, BaseMismatch
from bilora.storage import read_json, sha256_file


def check_adapter(folder: Path, base: Base, *, stage: str) -> None:
    """Check the manifest of a trained adapter.

    Args:
        stage: makes the adapter.

    Raises:
        BaseMismatch: the adapter belongs to another base, or to this one with other files.
        BadData: its bytes are not those of its manifest.
    """
    manifest, config = read_json(folder / "manifest.json"), read_json(folder / "adapter_config.json")
    if not isinstance(config, dict) or not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise BadData(folder, f"is no adapter with a manifest; run `dvc repro -f {stage}`.")
    made_for = (manifest.get("base_id"), manifest.get("base_revision"))
    if made_for != (base.id, base.identity) or config.get("base_model_name_or_path") != base.id:
        then = manifest.get("base_files") if made_for[0] == base.id else None
        version = f"with another {changed_files(then, base.files())}" if then else f"at {made_for[1]}"
        raise BaseMismatch(folder, f"this adapter was made for {made_for[0]} {version}; run `dvc repro {stage}`.")
    for name, digest in manifest["files"].items():
        if not (folder / name).is_file() or sha256_file(folder / name) != digest:
            raise BadData(folder / name, f"does not match its manifest; run `dvc repro -f {stage}`.")


def check_bundle(place: Path | str, manifest: Mapping[str, Any], base: Base) -> None:
    """Check the manifest of a bundle: its base is pinned by an identity, a commit, or its files in the bundle.

    Raises:
        BadData: it is for another base, or for another version of this one.
    """
    bundled, files = manifest["base"], manifest["files"]
    made_for = _full_name(bundled.get("id"), bundled.get("revision"), bundled.get("requirement"))
    if (bundled.get("id"), bundled.get("revision")) != (base.id, base.revision):
        wanted = _full_name(base.id, base.revision, base.requirement)
        raise BadData(place, f"its adapters were made for {made_for}, not for {wanted}.")
    folder = f"{bundled.get('path')}/"
    carried = {name.removeprefix(folder): one for name, one in files.items() if name.startswith(folder)}
    if (bundled.get("identity") or pinned_by(base.revision, carried)) != base.identity:
        here = f", which is from {base.requirement}" if base.requirement else ""
        which = f" (other: {changed_files(carried, base.files())})" if carried else ""
        raise BadData(
            place,
            f"its adapters were made for another version of {made_for} than the one here{here}{which}; "
            "take a newer bundle, or set `base` in params.yaml to the one in its manifest.",
        )


def _full_name(id: str | None, revision: str | None, requirement: str | None) -> str:
    """Name a base for a person: its id, its commit, and the package that it is in."""
    name = " at ".join(filter(None, (str(id), revision)))
    return f"{name} from {requirement}" if requirement else name
