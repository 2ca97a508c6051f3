"""Publishing: only adapters whose own bytes passed the gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bilora.errors import NotPromotable, Unreachable
from bilora.protocols import Hub
from bilora.publishing.bundle import bundled_sha256, bundled_tasks
from bilora.publishing.manifest import MANIFEST
from bilora.results import Verdict
from bilora.storage import sha256_bytes


@dataclass(frozen=True)
class PushResult:
    """Where the bundle is, its manifest's digest, and whether anything changed there."""

    location: str
    digest: str
    changed: bool


def refusals(files: Mapping[str, bytes], verdicts: Mapping[str, Verdict]) -> list[str]:
    """Return why adapters may not be published; empty if all may."""
    reasons = []
    for task in bundled_tasks(files):
        verdict = verdicts.get(task)
        if verdict is None:
            reasons.append(f"{task}: no verdict; run `dvc repro benchmark`")
        elif verdict.outcome != "pass":
            reasons.append(f"{task}: {verdict.outcome}; {verdict.reason}")
        elif verdict.task != task or verdict.adapter_sha256 != bundled_sha256(files, task):
            reasons.append(f"{task}: the verdict is about other bytes; run `dvc repro benchmark`")
    return reasons + [
        f"{task}: {verdict.outcome}; its adapter is not in the bundle"
        for task, verdict in sorted(verdicts.items())
        if task not in bundled_tasks(files)
    ]


def push(
    hub: Hub, files: dict[str, bytes], verdicts: Mapping[str, Verdict], *, message: str = "Publish adapters"
) -> PushResult:
    """Publish a bundle if every adapter in it has a passing verdict bound to exactly its bytes.

    Args:
        hub: publishing equal bytes again must change nothing there.
        files: see `build_bundle`.
        verdicts: of every task of the benchmark; one that did not pass stops all.

    Raises:
        NotPromotable: with every refusal and its reason; nothing was published.
        Unreachable: the hub does not serve what was handed to it.
    """
    if reasons := refusals(files, verdicts):
        raise NotPromotable("Nothing was published. " + " · ".join(reasons))
    if not bundled_tasks(files):
        raise NotPromotable("Nothing was published: the bundle holds no adapter. Run `dvc repro train` first.")
    return publish_unchecked(hub, files, message=message)


def published_adapters(hub: Hub) -> dict[str, str]:
    """Return the SHA-256 of the adapters that are published now, by task."""
    versions = hub.versions()
    files = hub.read(versions[0]) if versions else {}
    return {task: bundled_sha256(files, task) for task in bundled_tasks(files)} if MANIFEST in files else {}


def publish_unchecked(hub: Hub, files: dict[str, bytes], *, message: str) -> PushResult:
    """Publish without a look at verdicts, and make sure that the hub serves it.

    Raises:
        Unreachable: the hub does not serve what was handed to it.
    """
    digest = sha256_bytes(files[MANIFEST])
    published = hub.publish(files, message=message)
    if hub.digest() != digest:
        raise Unreachable(f"{published.location} does not serve what was published. Push again.")
    return PushResult(location=published.location, digest=digest, changed=published.changed)
