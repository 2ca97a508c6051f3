"""Publish only adapters whose bytes passed the gate."""

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
    """The bundle's location, its manifest's digest, and whether anything changed there."""

    location: str
    digest: str
    changed: bool


def verified_results(results: Results, recomputed: Results) -> Results:
    """Return the recomputed results with the verdicts of results.json, which may have been edited.

    A recomputed verdict that does not pass replaces the one of results.json. A passing one does not: after its
    promotion an adapter is compared with the base only.

    Args:
        results: the content of results.json.
        recomputed: the results computed again from the evaluation's rows.

    Raises:
        NotPromotable: the scores in results.json are not those of the rows.
    """
    for name in sorted(results.tasks.keys() | recomputed.tasks.keys()):
        if not _agree(results.tasks.get(name), recomputed.tasks.get(name)):
            raise NotPromotable(
                f"Nothing was published. {name}: results.json does not match the evaluation; run `dvc repro benchmark`."
            )
    tasks = {
        name: task if _fails(task.verdict) else task.model_copy(update={"verdict": results.tasks[name].verdict})
        for name, task in recomputed.tasks.items()
    }
    return recomputed.model_copy(update={"tasks": tasks})


def _agree(written: TaskResults | None, recomputed: TaskResults | None) -> bool:
    if written is None or recomputed is None or written.entry != recomputed.entry:
        return False
    if written.verdict is None or recomputed.verdict is None:
        return True
    return _from_rows(written.verdict) == _from_rows(recomputed.verdict)


def _from_rows(verdict: Verdict) -> tuple[object, ...]:
    """Return the fields that depend on the rows only, not on the incumbents."""
    return (verdict.n, verdict.unscored, verdict.guards)


def _fails(verdict: Verdict | None) -> bool:
    return verdict is not None and verdict.outcome != "pass"


def refusals(files: Mapping[str, bytes], verdicts: Mapping[str, Verdict]) -> list[str]:
    """Return the reasons not to publish; empty if there is none."""
    reasons = []
    for task in bundled_tasks(files):
        verdict = verdicts.get(task)
        if verdict is None:
            reasons.append(f"{task}: no verdict; run `dvc repro benchmark`")
        elif verdict.outcome != "pass":
            reasons.append(f"{task}: {verdict.outcome}; {verdict.reason}")
        elif verdict.task != task or verdict.adapter_sha256 != bundled_sha256(files, task):
            reasons.append(f"{task}: the verdict belongs to other bytes; run `dvc repro benchmark`")
    return reasons + [
        f"{task}: {verdict.outcome}; its adapter is not in the bundle"
        for task, verdict in sorted(verdicts.items())
        if task not in bundled_tasks(files)
    ]


def push(
    hub: Hub, files: dict[str, bytes], verdicts: Mapping[str, Verdict], *, message: str = "Publish adapters"
) -> PushResult:
    """Publish a bundle if each of its adapters has a passing verdict on exactly its bytes.

    Args:
        hub: where to publish.
        files: see `build_bundle`.
        verdicts: of every task of the benchmark; all must pass.

    Raises:
        NotPromotable: nothing was published, for the reasons in the message.
        Unreachable: the hub does not return what was published.
    """
    if reasons := refusals(files, verdicts):
        raise NotPromotable("Nothing was published. " + " · ".join(reasons))
    if not bundled_tasks(files):
        raise NotPromotable("Nothing was published: the bundle contains no adapter. Run `dvc repro train` first.")
    return publish_unchecked(hub, files, message=message)


def published_adapters(hub: Hub) -> dict[str, str]:
    """Return the SHA-256 of the currently published adapters, by task."""
    versions = hub.versions()
    files = hub.read(versions[0]) if versions else {}
    return {task: bundled_sha256(files, task) for task in bundled_tasks(files)} if MANIFEST in files else {}


def publish_unchecked(hub: Hub, files: dict[str, bytes], *, message: str) -> PushResult:
    """Publish a bundle without checking its verdicts.

    Raises:
        Unreachable: the hub does not return what was published.
    """
    digest = sha256_bytes(files[MANIFEST])
    published = hub.publish(files, message=message)
    if hub.digest() != digest:
        raise Unreachable(f"{published.location} does not contain what was published. Push again.")
    return PushResult(location=published.location, digest=digest, changed=published.changed)
