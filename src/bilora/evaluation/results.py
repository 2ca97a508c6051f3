"""The content of benchmarking/results.json: what was measured, under which conditions, row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bilora.evaluation.baseline import baseline_entry
from bilora.evaluation.run import FLOOR
from bilora.evaluation.statistics import bootstrap_mean, score_interval
from bilora.records import Sample, Scored, Verdict
from bilora.storage import sha256_json
from bilora.tasks.task import Task

SCHEMA = 1
HARNESS = "1"
"""Raised whenever the same answers would score differently; older baselines then stop comparing."""

OWN = "bilora"
"""The column of all adapters together."""
DATASETS = {"test": "Held-out test split", "curated": "Curated evaluation set"}


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
        not_run: metrics that were not run at all, with the reason ("no judge is configured").
        notes: remarks on systems, such as an endpoint that did not answer.
        judge: remarks on the judge, such as how it did when it was checked.
    """
    return {
        "schema": SCHEMA,
        "profile": profile,
        "harness": HARNESS,
        "seed": seed,
        "notes": dict(notes or {}),
        "judge": list(judge),
        "latency_s": _pooled_latency(rows, seed, draws),
        "tasks": {
            name: _task(
                task,
                rows.get(name, ()),
                key=keys.get(name, ""),
                adapter_sha256=adapters.get(name, ""),
                verdict=verdicts.get(name),
                not_run=dict(not_run or {}),
                seed=seed,
                draws=draws,
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
    seed: int,
    draws: int,
) -> dict[str, Any]:
    promised = task.metric_names
    scored = sorted({score.metric for row in rows for score in row.scores})
    metrics = list(dict.fromkeys([*promised, *scored, *not_run]))
    summary: dict[str, Any] = {}
    for dataset in DATASETS:
        here = [row for row in rows if row.dataset == dataset]
        if here:
            summary[dataset] = {
                "systems": _systems(here, metrics, seed, draws),
                "tiers": [
                    {
                        "tier": tier,
                        "systems": _systems(
                            [row for row in here if row.sample.tier == tier], [task.headline], seed, draws
                        ),
                    }
                    for tier in _tiers(here)
                ],
            }
    return {
        "title": task.title,
        "headline": task.headline,
        "metrics": metrics,
        "not_run": not_run,
        "key": key,
        "adapter_sha256": adapter_sha256,
        "verdict": verdict.model_dump(mode="json") if verdict else None,
        "entry": baseline_entry(task.name, promised, rows, adapter_sha256=adapter_sha256, key=key),
        "summary": summary,
        "samples": {row.sample.id: row.sample.model_dump(mode="json") for row in rows},
        "rows": [_row(row) for row in rows],
    }


def _tiers(rows: Sequence[Scored]) -> list[str]:
    """Difficulty classes in the order of their references' mean length, for their names sort badly."""
    lengths: dict[str, list[int]] = {}
    for row in rows:
        if row.sample.tier:
            lengths.setdefault(row.sample.tier, []).append(len(row.sample.target))
    return sorted(lengths, key=lambda tier: (sum(lengths[tier]) / len(lengths[tier]), tier))


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


def _systems(rows: Sequence[Scored], metrics: Sequence[str], seed: int, draws: int) -> dict[str, Any]:
    systems = sorted({row.completion.system for row in rows})
    return {
        system: _system([row for row in rows if row.completion.system == system], metrics, seed, draws)
        for system in systems
    }


def _system(rows: Sequence[Scored], metrics: Sequence[str], seed: int, draws: int) -> dict[str, Any]:
    measured = {metric: _metric(rows, metric, seed, draws) for metric in metrics}
    return {
        "n": len(rows),
        "errors": sum(row.completion.finish == "error" for row in rows),
        "cut": sum(row.completion.finish == "length" for row in rows),
        "metrics": {metric: found for metric, found in measured.items() if found is not None},
        "latency_s": _latency([row for row in rows if row.completion.finish != "error"], seed, draws),
    }


def _metric(rows: Sequence[Scored], metric: str, seed: int, draws: int) -> dict[str, Any] | None:
    scores = [(row, score) for row in rows for score in row.scores if score.metric == metric]
    if not scores:
        return None
    known = [(row, score.value) for row, score in scores if score.value is not None]
    values = [value for _, value in known]
    interval = score_interval(values, seed=seed, draws=draws, clusters=[row.sample.group for row, _ in known])
    reasons = Counter(score.reason or "no reason given" for _, score in scores if score.value is None)
    return {
        "n": len(values),
        "unscored": len(scores) - len(values),
        "reasons": dict(sorted(reasons.items())),
        "mean": sum(values) / len(values) if values else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
    }


def _pooled_latency(rows: Mapping[str, Sequence[Scored]], seed: int, draws: int) -> dict[str, Any]:
    """Latency of each column over all tasks, by data set."""
    columns: dict[str, dict[str, list[Scored]]] = {dataset: {} for dataset in DATASETS}
    for task, found in rows.items():
        for row in found:
            system = OWN if row.completion.system == task else row.completion.system
            if row.completion.finish != "error" and not system.startswith(FLOOR):
                columns[row.dataset].setdefault(system, []).append(row)
    return {
        dataset: {system: _latency(found, seed, draws) for system, found in systems.items()}
        for dataset, systems in columns.items()
    }


def _latency(rows: Sequence[Scored], seed: int, draws: int) -> dict[str, Any] | None:
    seconds = [row.completion.latency_s for row in rows]
    if not seconds or all(row.completion.system.startswith(FLOOR) for row in rows):
        return None
    interval = bootstrap_mean(seconds, seed=seed, draws=draws) if len(seconds) > 1 else None
    tokens = sum(row.completion.output_tokens for row in rows)
    return {
        "n": len(seconds),
        "mean": float(np.mean(seconds)),
        "low": max(0.0, interval.low) if interval else None,
        "high": interval.high if interval else None,
        "median": float(np.median(seconds)),
        "p95": float(np.quantile(seconds, 0.95)),
        "tokens_per_s": tokens / sum(seconds) if sum(seconds) > 0 else None,
    }
