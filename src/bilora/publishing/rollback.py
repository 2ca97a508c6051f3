"""Back to a version that was published before: its very bytes, and only if they are still what they were."""

from __future__ import annotations

from collections.abc import Mapping

from bilora.errors import BadData, NotPromotable
from bilora.protocols import Hub
from bilora.publishing.bundle import bundled_sha256
from bilora.publishing.manifest import MANIFEST, files_sha256, parse_manifest
from bilora.publishing.push import PushResult, publish_unchecked
from bilora.storage import sha256_bytes


def rollback(hub: Hub, to: str | None = None) -> PushResult:
    """Publish an earlier version again, as a new change on top of what is served.

    Args:
        hub: where bundles are published.
        to: the start of a version's name; by default the last one with other bytes than now.

    Raises:
        BadData: there is no such version, the name is not clear, or its bytes are not what they were.
        NotPromotable: an adapter in it was published without a passing verdict on its bytes.
        Unreachable: the hub did not answer, or does not serve it afterwards.
    """
    version, files = _earlier(hub) if to is None else _named(hub, to)
    verify_version(version, files)
    return publish_unchecked(hub, files, message=f"Roll back to {version[:12]}")


def verify_version(version: str, files: Mapping[str, bytes]) -> None:
    """Refuse a version whose bytes or verdicts are not what its manifest says; see `rollback`."""
    if MANIFEST not in files:
        raise BadData(version, f"holds no {MANIFEST}, so it is no version that was published from here.")
    manifest = parse_manifest(version, files[MANIFEST])
    if manifest.files != files_sha256(files):
        raise BadData(version, "its bytes are not those of its manifest, so it is not served again.")
    for task, adapter in manifest.adapters.items():
        verdict = adapter.verdict
        if verdict is None or verdict.outcome != "pass" or verdict.adapter_sha256 != bundled_sha256(files, task):
            raise NotPromotable(f"{version}: {task} has no passing verdict on these bytes; nothing was changed.")


def _earlier(hub: Hub) -> tuple[str, dict[str, bytes]]:
    now = hub.digest()
    for version in hub.versions()[1:]:
        files = hub.read(version)
        if MANIFEST in files and sha256_bytes(files[MANIFEST]) != now:
            return version, files
    raise BadData("hub", "nothing else was published before, so there is nothing to go back to.")


def _named(hub: Hub, to: str) -> tuple[str, dict[str, bytes]]:
    matching = sorted({version for version in hub.versions() if version.startswith(to)})
    if len(matching) > 1:
        raise BadData("hub", f"{to!r} is the start of {len(matching)} versions; name more of it.")
    version = matching[0] if matching else to
    return version, hub.read(version)
