"""Publishing: only adapters whose own bytes passed the gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bilora.errors import NotPromotable, Unreachable
from bilora.protocols import Hub
from bilora.publishing.bundle import bundled_sha256, bundled_tasks
from bilora.publishing.manifest import MANIFEST
from bilora.results import Results, TaskResults, Verdict
from bilora.storage import sha256_bytes


@dataclass(frozen=True)
class PushResult:
    """Where the bundle is, its manifest's digest, and whether anything changed there."""

    location: str
    digest: str
    changed: bool


def verified_results(results: Results, again: Results) -> Results:
    """Return what the rows give, with the verdicts of results.json, which may have been edited.

    A verdict that the rows do not confirm is replaced by theirs. The others stay: once an adapter is promoted, its rows
    are measured against the base alone.

    Args:
        results: as results.json has them.
        again: computed from the rows that evaluate wrote.

    Raises:
        NotPromotable: the rows do not give the scores of results.json.
    """
    for name in sorted(results.tasks.keys() | again.tasks.keys()):
        if not _agree(results.tasks.get(name), again.tasks.get(name)):
            raise NotPromotable(
                f"Nothing was published. {name}: results.json is not what its evaluation gives; "
                "run `dvc repro benchmark`."
            )
    tasks = {
        name: now if _fails(now.verdict) else now.model_copy(update={"verdict": results.tasks[name].verdict})
        for name, now in again.tasks.items()
    }
    return again.model_copy(update={"tasks": tasks})


def _agree(written: TaskResults | None, now: TaskResults | None) -> bool:
    if written is None or now is None or written.entry != now.entry:
        return False
    if written.verdict is None or now.verdict is None:
        return True
    return _measured(written.verdict) == _measured(now.verdict)


def _measured(verdict: Verdict) -> tuple[object, ...]:
    """Return what the rows alone decide, whatever was promoted since."""
    return (verdict.n, verdict.unscored, verdict.guards)


def _fails(verdict: Verdict | None) -> bool:
    return verdict is not None and verdict.outcome != "pass"


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
