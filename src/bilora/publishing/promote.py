"""Make the published adapters the ones that later adapters are measured against."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bilora.errors import BadData, NotPromotable
from bilora.storage import dump_json, read_json, sha256_bytes, write_text

SCHEMA = 2


def promote(results: Mapping[str, Any], baseline_path: Path, history_path: Path, *, created_utc: str) -> bool:
    """Write the results' entries into baseline.json and one line into the history; return whether news.

    Entries of tasks that these results do not know stay. The history's line is written first and
    names the baseline it leads to, so a run that was killed in between is completed by the next
    one without a second line.

    Args:
        results: the content of results.json; every verdict in it must pass.
        baseline_path: benchmarking/baseline.json.
        history_path: benchmarking/history.jsonl, only ever appended to.
        created_utc: the time of this promotion, ISO 8601.

    Raises:
        NotPromotable: a verdict did not pass, or is bound to other bytes than the entry.
        BadData: baseline.json is not of this schema.
    """
    entries = {}
    for name, task in sorted(results["tasks"].items()):
        verdict, entry = task["verdict"], task["entry"]
        if not verdict or verdict["outcome"] != "pass" or verdict["adapter_sha256"] != entry["adapter_sha256"]:
            raise NotPromotable(f"{name} has no passing verdict for these bytes, so the baseline stays as it is.")
        entries[name] = entry
    with _alone(baseline_path.parent):
        document = _read(baseline_path)
        old = document["tasks"]
        moved = {name: _standing(entry, old.get(name)) for name, entry in entries.items()}
        text = dump_json({**document, "tasks": {**old, **moved}}, indent=2) + "\n"
        if baseline_path.exists() and baseline_path.read_text(encoding="utf-8") == text:
            return False
        digest = sha256_bytes(text.encode())
        if _last_digest(history_path) != digest:
            _append(
                history_path,
                {
                    "baseline_sha256": digest,
                    "created_utc": created_utc,
                    "profile": results["profile"],
                    "tasks": {
                        name: {
                            "adapter_sha256": entry["adapter_sha256"],
                            "key": entry["key"],
                            "replaced": old.get(name, {}).get("current", {}).get("adapter_sha256"),
                            "champion": moved[name]["champion"]["adapter_sha256"],
                            "verdict": results["tasks"][name]["verdict"],
                        }
                        for name, entry in entries.items()
                        if moved[name] != old.get(name)
                    },
                },
            )
        write_text(baseline_path, text)
    return True


def forget(task: str, baseline_path: Path, history_path: Path, *, created_utc: str) -> None:
    """Take a task's entries out of baseline.json, and say so in the history.

    Raises:
        BadData: the baseline has no such task, or is not of this schema.
    """
    with _alone(baseline_path.parent):
        document = _read(baseline_path)
        tasks = dict(document["tasks"])
        if task not in tasks:
            raise BadData(baseline_path, f"has no entry of {task!r}; nothing was changed.")
        forgotten = tasks.pop(task)["current"]["adapter_sha256"]
        text = dump_json({**document, "tasks": tasks}, indent=2) + "\n"
        _append(
            history_path,
            {
                "baseline_sha256": sha256_bytes(text.encode()),
                "created_utc": created_utc,
                "forgotten": {task: forgotten},
            },
        )
        write_text(baseline_path, text)


def _standing(entry: dict[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
    """Put the newcomer in; the champion stays unless it was beaten or was measured under other conditions."""
    champion = before["champion"] if before else entry
    beaten = champion["key"] != entry["key"] or _headline(entry) > _headline(champion)
    return {"current": entry, "champion": entry if beaten else champion}


def _headline(entry: Mapping[str, Any]) -> float:
    known = [value for value in entry["scores"][entry["metric"]].values() if value is not None]
    return sum(known) / len(known) if known else 0.0


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lock a folder itself, so that no lock file is left beside files under version control."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {"schema": SCHEMA, "tasks": {}}
    document = read_json(path)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA or "tasks" not in document:
        raise BadData(path, f"not a baseline of schema {SCHEMA}; restore it from version control.")
    return document


def _last_digest(path: Path) -> str | None:
    """Return which baseline the last whole line led to; a torn line is what a kill left behind."""
    for line in reversed(path.read_bytes().splitlines() if path.exists() else []):
        with contextlib.suppress(ValueError):
            return str(json.loads(line)["baseline_sha256"])
    return None


def _append(path: Path, line: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.read_bytes() if path.exists() else b""
    torn = bool(written) and not written.endswith(b"\n")
    with path.open("ab") as history:
        history.write(b"\n" * torn + (dump_json(line) + "\n").encode())
        history.flush()
        os.fsync(history.fileno())
