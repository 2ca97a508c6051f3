"""The content of benchmarking/results.json: what was measured, under which conditions, row by row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bilora.errors import BadData
from bilora.evaluation.baseline import baseline_entry, is_entry
from bilora.evaluation.summary import DATASETS, FORM, OUTCOMES, Summary
from bilora.records import Sample, Scored, Verdict
from bilora.storage import read_json, sha256_json
from bilora.tasks.task import Task

SCHEMA = 1
TASK_FIELDS = frozenset(
    {
        "title",
        "headline",
        "metrics",
        "not_run",
        "key",
        "adapter_sha256",
        "verdict",
        "entry",
        "summary",
        "samples",
        "rows",
    }
)
"""What results.json says of each task."""
HARNESS = "1"
"""Raised whenever the same answers would score differently; older baselines then stop comparing."""


def comparability_key(
    task: Task,
    samples: Iterable[Sample],
    *,
    decoding: Mapping[str, Any],
    judge: str | None,
    isolation: str,
) -> str:
    """Hash of everything that must be equal before two runs may be compared.

    Args:
        task: its chat is part of the key.
        samples: the held-out test samples, in any order.
        decoding: generation settings.
        judge: the judge's id, or None.
        isolation: the sandbox's layers, without what differs from answer to answer.
    """
    asked = sorted(
        (
            sample.id,
            sample.target,
            list(sample.tests),
            sample.setup,
            [(message.role, message.content) for message in task.messages(sample.prompt)],
        )
        for sample in samples
    )
    return sha256_json(
        {
            "task": task.name,
            "data": sha256_json(asked),
            "decoding": dict(decoding),
            "harness": HARNESS,
            "judge": judge,
            "isolation": isolation,
        }
    )


def read_results(path: Path) -> dict[str, Any]:
    """Read results.json.

    Raises:
        BadData: it is absent, something else, or of another schema.
    """
    document: Any = read_json(path)
    tasks = document.get("tasks") if isinstance(document, dict) else None
    if not isinstance(tasks, dict) or "profile" not in document:
        raise BadData(path, "is no results.json of `bilora benchmark`.")
    if document.get("schema") != SCHEMA:
        raise BadData(path, f"is of schema {document.get('schema')}, not {SCHEMA}; run `dvc repro -f benchmark`.")
    for name, task in tasks.items():
        if not isinstance(task, dict) or TASK_FIELDS - task.keys() or not is_entry(task["entry"]):
            raise BadData(path, f"what it says of {name!r} is not whole; run `dvc repro -f benchmark`.")
        if not isinstance(task["summary"], dict) or not _is_verdict(task["verdict"]):
            raise BadData(path, f"its summary or verdict of {name!r} is malformed; run `dvc repro -f benchmark`.")
    whole: dict[str, Any] = document
    return whole


def _is_verdict(value: object) -> bool:
    try:
        return value is None or bool(Verdict.model_validate(value))
    except ValidationError:
        return False


def build_results(
    rows: Mapping[str, Sequence[Scored]],
    *,
    profile: str,
    tasks: Mapping[str, Task],
    keys: Mapping[str, str],
    adapters: Mapping[str, str],
    verdicts: Mapping[str, Verdict],
    seed: int,
    draws: int = 10_000,
    k: Sequence[int] = (),
    not_run: Mapping[str, str] | None = None,
    notes: Mapping[str, str] | None = None,
    judge: Sequence[str] = (),
) -> dict[str, Any]:
    """Gather one benchmark run as plain data.

    Args:
        rows: every scored answer, by task; a task without rows is reported as not run.
        tasks: the tasks of this profile.
        keys: comparability key by task.
        adapters: sha256 of the adapter that answered, by task.
        verdicts: the gate's word, by task.
        k: of pass@k, where several answers a sample were drawn.
        not_run: metrics that were not run at all, with the reason ("no judge is configured").
        notes: remarks on systems, such as an endpoint that did not answer.
        judge: remarks on the judge, such as how it did when it was checked.
    """
    summary = Summary(seed, draws, k)
    return {
        "schema": SCHEMA,
        "profile": profile,
        "harness": HARNESS,
        "seed": seed,
        "notes": dict(notes or {}),
        "judge": list(judge),
        "latency_s": summary.pooled_latency(rows),
        "tasks": {
            name: _task(
                task,
                rows.get(name, ()),
                key=keys.get(name, ""),
                adapter_sha256=adapters.get(name, ""),
                verdict=verdicts.get(name),
                not_run=dict(not_run or {}),
                summary=summary,
            )
            for name, task in sorted(tasks.items())
        },
    }


def _task(
    task: Task,
    rows: Sequence[Scored],
    *,
    key: str,
    adapter_sha256: str,
    verdict: Verdict | None,
    not_run: dict[str, str],
    summary: Summary,
) -> dict[str, Any]:
    promised = task.metric_names
    scored = sorted({score.metric for row in rows for score in row.scores})
    told = {
        dataset: summary.dataset(task, dataset, here, list(dict.fromkeys([*promised, *scored])))
        for dataset in DATASETS
        if (here := [row for row in rows if row.dataset == dataset])
    }
    derived = [f"pass_at_{k}" for k in summary.k if "sampled" in told] + [name for name in FORM if "test" in told]
    derived += [name for name in OUTCOMES if any("status" in score.evidence for row in rows for score in row.scores)]
    return {
        "title": task.title,
        "headline": task.headline,
        "metrics": list(dict.fromkeys([*promised, *scored, *derived, *not_run])),
        "not_run": not_run,
        "key": key,
        "adapter_sha256": adapter_sha256,
        "verdict": verdict.model_dump(mode="json") if verdict else None,
        "entry": baseline_entry(task.name, promised, rows, adapter_sha256=adapter_sha256, key=key),
        "summary": told,
        "samples": {row.sample.id: row.sample.model_dump(mode="json") for row in rows},
        "rows": [_row(row) for row in rows],
    }


def _row(row: Scored) -> dict[str, Any]:
    answer = row.completion.model_dump(mode="json", exclude={"sample_id"})
    scores = {
        score.metric: score.model_dump(mode="json", include={"value", "reason", "evidence"}) for score in row.scores
    }
    return {
        "dataset": row.dataset,
        "sample_id": row.sample.id,
        **answer,
        "answer": row.answer,
        "scores": scores,
    }
