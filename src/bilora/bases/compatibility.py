"""Check that an adapter, or a bundle of adapters, was trained on exactly this base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bilora.bases.base import Base
from bilora.bases.identity import base_identity, changed_files
from bilora.errors import BadData, BaseMismatch
from bilora.storage import read_json, sha256_file


def check_adapter(folder: Path, base: Base, *, stage: str) -> None:
    """Check the manifest of a trained adapter.

    Args:
        stage: the DVC stage that trains the adapter.

    Raises:
        BaseMismatch: it was trained on another base, or on another version of this one.
        BadData: its files do not match its manifest.
    """
    manifest, config = read_json(folder / "manifest.json"), read_json(folder / "adapter_config.json")
    if not isinstance(config, dict) or not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise BadData(folder, f"is not an adapter with a manifest; run `dvc repro -f {stage}`.")
    id, identity = manifest.get("base_id"), manifest.get("base_revision")
    if (id, identity) != (base.id, base.identity) or config.get("base_model_name_or_path") != base.id:
        old_files = manifest.get("base_files") if id == base.id else None
        version = f"with another {changed_files(old_files, base.files())}" if old_files else f"at {identity}"
        raise BaseMismatch(folder, f"this adapter was trained on {id} {version}; run `dvc repro {stage}`.")
    for name, digest in manifest["files"].items():
        if not (folder / name).is_file() or sha256_file(folder / name) != digest:
            raise BadData(folder / name, f"does not match its manifest; run `dvc repro -f {stage}`.")


def check_bundle(bundle: Path | str, manifest: Mapping[str, Any], base: Base) -> None:
    """Check that the adapters of a bundle were trained on this base.

    Args:
        bundle: its location, for messages.
        manifest: pins the base by an identity, a commit, or the base's files in the bundle.

    Raises:
        BadData: the adapters were trained on another base, or on another version of this one.
    """
    # 1) The same name and commit.
    entry, files = manifest["base"], manifest["files"]
    trained_on = _full_name(entry.get("id"), entry.get("revision"), entry.get("requirement"))
    if (entry.get("id"), entry.get("revision")) != (base.id, base.revision):
        expected = _full_name(base.id, base.revision, base.requirement)
        raise BadData(bundle, f"its adapters were trained on {trained_on}, not on {expected}.")
    # 2) The same identity, which follows from commit or files if the manifest has none.
    folder = f"{entry.get('path')}/"
    bundled = {name.removeprefix(folder): digest for name, digest in files.items() if name.startswith(folder)}
    if (entry.get("identity") or base_identity(base.revision, bundled)) != base.identity:
        source = f", which is from {base.requirement}" if base.requirement else ""
        changed = f" (other: {changed_files(bundled, base.files())})" if bundled else ""
        raise BadData(
            bundle,
            f"its adapters were trained on another version of {trained_on} than the one here{source}{changed}; "
            "use a newer bundle, or set `base` in params.yaml to the base in its manifest.",
        )


def _full_name(id: str | None, revision: str | None, requirement: str | None) -> str:
    """Return a base's id, commit and package for messages."""
    name = " at ".join(filter(None, (str(id), revision)))
    return f"{name} from {requirement}" if requirement else name
