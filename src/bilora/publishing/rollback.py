"""Publish an earlier version again, after checking that its bytes are unchanged."""

from __future__ import annotations

from collections.abc import Mapping

from bilora.errors import BadData, NotPromotable
from bilora.protocols import Hub
from bilora.publishing.bundle import bundled_sha256
from bilora.publishing.manifest import MANIFEST, files_sha256, parse_manifest
from bilora.publishing.push import PushResult, publish_unchecked
from bilora.storage import sha256_bytes


def rollback(hub: Hub, to: str | None = None) -> PushResult:
    """Publish an earlier version again, as a new version.

    Args:
        hub: where bundles are published.
        to: a prefix of the version's name; by default the last version that differs from the current one.

    Raises:
        BadData: there is no such version, the prefix is ambiguous, or the version's bytes have changed.
        NotPromotable: an adapter in it has no passing verdict on its bytes.
        Unreachable: the hub did not answer, or does not return what was published.
    """
    version, files = _earlier(hub) if to is None else _named(hub, to)
    verify_version(version, files)
    return publish_unchecked(hub, files, message=f"Roll back to {version[:12]}")


def verify_version(version: str, files: Mapping[str, bytes]) -> None:
    """Check a version's bytes and verdicts against its manifest; the errors are those of `rollback`."""
    if MANIFEST not in files:
        raise BadData(version, f"contains no {MANIFEST}, so BiLoRA did not publish this version.")
    manifest = parse_manifest(version, files[MANIFEST])
    if manifest.files != files_sha256(files):
        raise BadData(version, "its files do not match its manifest, so it was not published again.")
    for task, adapter in manifest.adapters.items():
        verdict = adapter.verdict
        if verdict is None or verdict.outcome != "pass" or verdict.adapter_sha256 != bundled_sha256(files, task):
            raise NotPromotable(f"{version}: {task} has no passing verdict on these bytes; nothing was changed.")


def _earlier(hub: Hub) -> tuple[str, dict[str, bytes]]:
    current = hub.digest()
    for version in hub.versions()[1:]:
        files = hub.read(version)
        if MANIFEST in files and sha256_bytes(files[MANIFEST]) != current:
            return version, files
    raise BadData("hub", "no earlier version was published.")


def _named(hub: Hub, to: str) -> tuple[str, dict[str, bytes]]:
    matching = sorted({version for version in hub.versions() if version.startswith(to)})
    if len(matching) > 1:
        raise BadData("hub", f"{len(matching)} versions start with {to!r}; name more characters.")
    version = matching[0] if matching else to
    return version, hub.read(version)
