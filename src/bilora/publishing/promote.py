"""Make the published adapters the incumbents that later adapters are compared with."""

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
    """One task's change by a promotion; `replaced` and `champion` are sha256 of adapters."""

    adapter_sha256: str
    key: str
    replaced: str | None
    champion: str | None = None
    verdict: Verdict


class HistoryLine(Record):
    """One change of baseline.json, with the digest of its new text: a promotion, a forgotten task, or a new schema."""

    baseline_sha256: str
    created_utc: str
    profile: str = ""
    tasks: dict[str, Promotion] = Field(default_factory=dict)
    forgotten: dict[str, str] = Field(default_factory=dict)
    upgraded_to_schema: int | None = None


def promote(results: Results, baseline_path: Path, history_path: Path, *, created_utc: str) -> bool:
    """Write the results' entries to baseline.json and one line to the history; return whether anything changed.

    Other tasks' entries remain. The history line is written first, with the digest of the new
    baseline, so that the next run completes an interrupted one without a second line.

    Args:
        results: all its verdicts must pass.
        baseline_path: benchmarking/baseline.json.
        history_path: benchmarking/history.jsonl, which is append-only.
        created_utc: the time of this promotion, ISO 8601.

    Raises:
        NotPromotable: a verdict did not pass, or is bound to other bytes than the entry.
        BadData: baseline.json is damaged or of another schema.
    """
    verdicts = _passing_verdicts(results)
    baseline_path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(baseline_path.parent):  # the folder itself, because a lock file would be under version control
        old = read_baseline(baseline_path)
        new = {name: _promoted(results.tasks[name].entry, old.tasks.get(name)) for name in verdicts}
        baseline = Baseline(tasks={**old.tasks, **new})
        if _is_written(baseline_path, baseline):
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
        _write(baseline_path, baseline, history_path, line)
    return True


def forget_incumbents(task: str, baseline_path: Path, history_path: Path, *, created_utc: str) -> None:
    """Remove a task's entries from baseline.json, and record that in the history.

    Raises:
        BadData: the baseline has no such task, is damaged, or is of another schema.
    """
    baseline_path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(baseline_path.parent):
        tasks = dict(read_baseline(baseline_path).tasks)
        if task not in tasks:
            raise BadData(baseline_path, f"has no entry for {task!r}; nothing was changed.")
        forgotten = tasks.pop(task).current.adapter_sha256
        baseline = Baseline(tasks=tasks)
        line = HistoryLine(baseline_sha256=_digest(baseline), created_utc=created_utc, forgotten={task: forgotten})
        _write(baseline_path, baseline, history_path, line)


def upgrade_baseline(baseline_path: Path, history_path: Path, *, created_utc: str) -> bool:
    """Rewrite a baseline.json of the previous schema with all its entries; return whether it was of that schema.

    Raises:
        BadData: the file is damaged or of an older schema; nothing was changed.
    """
    baseline_path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(baseline_path.parent):
        baseline = read_baseline(baseline_path, accept_previous=True)
        if not baseline_path.exists() or _is_written(baseline_path, baseline):
            return False
        line = HistoryLine(
            baseline_sha256=_digest(baseline), created_utc=created_utc, upgraded_to_schema=BASELINE_SCHEMA
        )
        _write(baseline_path, baseline, history_path, line)
    return True


def _passing_verdicts(results: Results) -> dict[str, Verdict]:
    verdicts = {}
    for name, task in sorted(results.tasks.items()):
        verdict = task.verdict
        if verdict is None or verdict.outcome != "pass" or verdict.adapter_sha256 != task.entry.adapter_sha256:
            raise NotPromotable(f"{name} has no passing verdict for these bytes; the baseline was not changed.")
        verdicts[name] = verdict
    return verdicts


def _promoted(entry: BaselineEntry, before: Incumbents | None) -> Incumbents:
    """Return the incumbents after a promotion; a better champion under the same conditions remains."""
    champion = before.champion if before else entry
    new, best = entry.mean(), champion.mean()
    replaced = champion.key != entry.key or (new is not None and (best is None or new > best))
    return Incumbents(current=entry, champion=entry if replaced else champion)


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


def _is_written(path: Path, baseline: Baseline) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == baseline_text(baseline)


def _write(baseline_path: Path, baseline: Baseline, history_path: Path, line: HistoryLine) -> None:
    """Write the history line, unless an interrupted run did, then the baseline."""
    if _last_digest(history_path) != line.baseline_sha256:
        _append(history_path, line)
    write_baseline(baseline_path, baseline)


def _last_digest(path: Path) -> str | None:
    """Return the baseline's digest in the last complete line; a killed process may leave an incomplete one."""
    for line in reversed(path.read_bytes().splitlines() if path.exists() else []):
        with contextlib.suppress(ValueError):
            return str(json.loads(line)["baseline_sha256"])
    return None


def _append(path: Path, line: HistoryLine) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_bytes() if path.exists() else b""
    incomplete = bool(text) and not text.endswith(b"\n")
    with path.open("ab") as history:
        history.write(
            b"\n" * incomplete + (dump_json(line.model_dump(mode="json", exclude_unset=True)) + "\n").encode()
        )
        history.flush()
        os.fsync(history.fileno())
