"""Make the published adapters the ones that later adapters are measured against."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from pydantic import Field

from bilora.errors import BadData, NotPromotable
from bilora.locks import exclusive_lock
from bilora.records import Record
from bilora.results import (
    BASELINE_SCHEMA,
    Baseline,
    BaselineEntry,
    Incumbents,
    Results,
    Verdict,
    baseline_text,
    read_baseline,
    write_baseline,
)
from bilora.storage import dump_json, sha256_bytes


class Promotion(Record):
    """What a promotion changed for one task; `replaced` and `champion` name adapters by their sha256."""

    adapter_sha256: str
    key: str
    replaced: str | None
    champion: str | None = None
    verdict: Verdict


class HistoryLine(Record):
    """One change of baseline.json, by the digest of its new text: a promotion, a task forgotten, or a new schema."""

    baseline_sha256: str
    created_utc: str
    profile: str = ""
    tasks: dict[str, Promotion] = Field(default_factory=dict)
    forgotten: dict[str, str] = Field(default_factory=dict)
    upgraded_to_schema: int | None = None


def promote(results: Results, baseline_path: Path, history_path: Path, *, created_utc: str) -> bool:
    """Write the results' entries into baseline.json and one line into the history; return whether anything changed.

    Entries of tasks that these results do not have stay. The history's line is written first and
    names the baseline it leads to, so a run that was killed in between is completed by the next
    one without a second line.

    Args:
        results: every verdict in it must pass.
        baseline_path: benchmarking/baseline.json.
        history_path: benchmarking/history.jsonl, only ever appended to.
        created_utc: the time of this promotion, ISO 8601.

    Raises:
        NotPromotable: a verdict did not pass, or is bound to other bytes than the entry.
        BadData: baseline.json is not of this schema.
    """
    verdicts = _passing_verdicts(results)
    baseline_path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(
        baseline_path.parent
    ):  # the folder itself: no lock file is left beside files under version control
        old = read_baseline(baseline_path)
        new = {name: _promoted(results.tasks[name].entry, old.tasks.get(name)) for name in verdicts}
        baseline = Baseline(tasks={**old.tasks, **new})
        if _holds(baseline_path, baseline):
            return False
        line = HistoryLine(
            baseline_sha256=_digest(baseline),
            created_utc=created_utc,
            profile=results.profile,
            tasks={
                name: _promotion(verdicts[name], incumbents, old.tasks.get(name))
                for name, incumbents in new.items()
                if incumbents != old.tasks.get(name)
            },
        )
        _replace(baseline_path, baseline, history_path, line)
    return True


def forget_incumbents(task: str, baseline_path: Path, history_path: Path, *, created_utc: str) -> None:
    """Take a task's entries out of baseline.json, and say so in the history.

    Raises:
        BadData: the baseline has no such task, or is not of this schema.
    """
    baseline_path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(baseline_path.parent):
        tasks = dict(read_baseline(baseline_path).tasks)
        if task not in tasks:
            raise BadData(baseline_path, f"has no entry of {task!r}; nothing was changed.")
        forgotten = tasks.pop(task).current.adapter_sha256
        baseline = Baseline(tasks=tasks)
        line = HistoryLine(baseline_sha256=_digest(baseline), created_utc=created_utc, forgotten={task: forgotten})
        _replace(baseline_path, baseline, history_path, line)


def upgrade_baseline(baseline_path: Path, history_path: Path, *, created_utc: str) -> bool:
    """Rewrite a baseline.json of the schema before this one with all its entries; return whether it was one.

    Raises:
        BadData: it is of another schema, or damaged; nothing was changed.
    """
    baseline_path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(baseline_path.parent):
        baseline = read_baseline(baseline_path, accept_previous=True)
        if not baseline_path.exists() or _holds(baseline_path, baseline):
            return False
        line = HistoryLine(
            baseline_sha256=_digest(baseline), created_utc=created_utc, upgraded_to_schema=BASELINE_SCHEMA
        )
        _replace(baseline_path, baseline, history_path, line)
    return True


def _passing_verdicts(results: Results) -> dict[str, Verdict]:
    verdicts = {}
    for name, task in sorted(results.tasks.items()):
        verdict = task.verdict
        if verdict is None or verdict.outcome != "pass" or verdict.adapter_sha256 != task.entry.adapter_sha256:
            raise NotPromotable(f"{name} has no passing verdict for these bytes, so the baseline stays as it is.")
        verdicts[name] = verdict
    return verdicts


def _promoted(entry: BaselineEntry, before: Incumbents | None) -> Incumbents:
    """Make an entry the current one; the champion stays unless it was beaten or was measured under other conditions."""
    champion = before.champion if before else entry
    new, best = entry.mean(), champion.mean()
    beaten = champion.key != entry.key or (new is not None and (best is None or new > best))
    return Incumbents(current=entry, champion=entry if beaten else champion)


def _promotion(verdict: Verdict, new: Incumbents, old: Incumbents | None) -> Promotion:
    return Promotion(
        adapter_sha256=new.current.adapter_sha256,
        key=new.current.key,
        replaced=old.current.adapter_sha256 if old else None,
        champion=new.champion.adapter_sha256,
        verdict=verdict,
    )


def _digest(baseline: Baseline) -> str:
    return sha256_bytes(baseline_text(baseline).encode())


def _holds(path: Path, baseline: Baseline) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == baseline_text(baseline)


def _replace(baseline_path: Path, baseline: Baseline, history_path: Path, line: HistoryLine) -> None:
    """Write the history's line, unless a run that was killed has done so, then the baseline."""
    if _last_digest(history_path) != line.baseline_sha256:
        _append(history_path, line)
    write_baseline(baseline_path, baseline)


def _last_digest(path: Path) -> str | None:
    """Return which baseline the last whole line led to; a torn line is what a kill left behind."""
    for line in reversed(path.read_bytes().splitlines() if path.exists() else []):
        with contextlib.suppress(ValueError):
            return str(json.loads(line)["baseline_sha256"])
    return None


def _append(path: Path, line: HistoryLine) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.read_bytes() if path.exists() else b""
    torn = bool(written) and not written.endswith(b"\n")
    with path.open("ab") as history:
        history.write(b"\n" * torn + (dump_json(line.model_dump(mode="json", exclude_unset=True)) + "\n").encode())
        history.flush()
        os.fsync(history.fileno())
