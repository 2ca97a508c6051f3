"""Means with intervals, by data set, system and tier: what is told of rows, beside the rows themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bilora.evaluation.run import FLOOR
from bilora.evaluation.statistics import bootstrap_mean, score_interval
from bilora.metrics.functional import pass_at_k
from bilora.records import Scored
from bilora.tasks.task import Task

OWN = "bilora"
"""The column of all adapters together."""
DATASETS = {
    "test": "Held-out test split",
    "hidden": "Held-out test split, tests hidden",
    "sampled": "Held-out test split, several answers a sample",
    "curated": "Curated evaluation set",
}
FORM = ("well_formed", "stopped")
"""Reported of the answers to the test split: do they have the form of one, and did the system end them itself?"""
OUTCOMES = {"passed_in_process": "passed-in-process", "missing_module": "missing-module"}
"""Reported of answers that are run: how many had one of these outcomes of the sandbox, each 0 in the headline."""

Row = tuple[str, float | None, str]
"""A cluster's name, a value or None, and why it is None."""


@dataclass(frozen=True)
class Summary:
    """How to draw intervals, and for which `k` to tell pass@k."""

    seed: int
    draws: int = 10_000
    k: Sequence[int] = ()

    def dataset(self, task: Task, dataset: str, rows: Sequence[Scored], metrics: Sequence[str]) -> dict[str, Any]:
        """Tell of one data set by system, and of its headline by tier and system."""
        return {
            "systems": {
                system: self._system(task, dataset, found, metrics) for system, found in _by_system(rows).items()
            },
            "tiers": [
                {
                    "tier": tier,
                    "systems": {
                        system: {"metrics": self._metrics(dataset, found, [task.headline])}
                        for system, found in _by_system([row for row in rows if row.sample.tier == tier]).items()
                    },
                }
                for tier in _tiers(rows)
            ],
        }

    def _system(self, task: Task, dataset: str, rows: Sequence[Scored], metrics: Sequence[str]) -> dict[str, Any]:
        measured = self._metrics(dataset, rows, metrics)
        if dataset == "test" and not rows[0].completion.system.startswith(FLOOR):
            measured |= {name: self._mean(_form(task, rows, name)) for name in FORM}
            if outcomes := [found for row in rows if (found := _outcome(row))]:
                measured |= {name: self._mean(_shares(outcomes, status)) for name, status in OUTCOMES.items()}
        return {
            "n": len(rows),
            "errors": sum(row.completion.finish == "error" for row in rows),
            "cut": sum(row.completion.finish == "length" for row in rows),
            "metrics": measured,
            "latency_s": self._latency([row for row in rows if row.completion.finish != "error"]),
        }

    def _metrics(self, dataset: str, rows: Sequence[Scored], metrics: Sequence[str]) -> dict[str, Any]:
        if dataset == "sampled":
            return {f"pass_at_{k}": self._mean(_pass_at(k, rows)) for k in self.k}
        return {metric: self._mean(found) for metric in metrics if (found := _scores(rows, metric))}

    def _mean(self, rows: Sequence[Row]) -> dict[str, Any]:
        known = [(cluster, value) for cluster, value, _ in rows if value is not None]
        values = [value for _, value in known]
        interval = score_interval(values, seed=self.seed, draws=self.draws, clusters=[cluster for cluster, _ in known])
        reasons = Counter(reason or "no reason given" for _, value, reason in rows if value is None)
        return {
            "n": len(values),
            "unscored": len(rows) - len(values),
            "reasons": dict(sorted(reasons.items())),
            "mean": sum(values) / len(values) if values else None,
            "low": interval.low if interval else None,
            "high": interval.high if interval else None,
        }

    def pooled_latency(self, rows: Mapping[str, Sequence[Scored]]) -> dict[str, Any]:
        """Tell the latency of each column over all tasks, by data set."""
        columns: dict[str, dict[str, list[Scored]]] = {dataset: {} for dataset in DATASETS}
        for task, found in rows.items():
            for row in found:
                system = OWN if row.completion.system == task else row.completion.system
                if row.completion.finish != "error" and not system.startswith(FLOOR):
                    columns[row.dataset].setdefault(system, []).append(row)
        return {
            dataset: {system: self._latency(found) for system, found in systems.items()}
            for dataset, systems in columns.items()
        }

    def _latency(self, rows: Sequence[Scored]) -> dict[str, Any] | None:
        seconds = [row.completion.latency_s for row in rows]
        if not seconds or all(row.completion.system.startswith(FLOOR) for row in rows):
            return None
        interval = bootstrap_mean(seconds, seed=self.seed, draws=self.draws) if len(seconds) > 1 else None
        counted = [
            (one.output_tokens, one.latency_s) for row in rows if (one := row.completion).output_tokens is not None
        ]
        during = sum(latency_s for _, latency_s in counted)
        first = [row.completion.first_token_s for row in rows if row.completion.first_token_s is not None]
        return {
            "n": len(seconds),
            "mean": float(np.mean(seconds)),
            "low": max(0.0, interval.low) if interval else None,
            "high": interval.high if interval else None,
            "median": float(np.median(seconds)),
            "p95": float(np.quantile(seconds, 0.95)),
            "first_token_s": float(np.median(first)) if first else None,
            "tokens_per_s": sum(tokens for tokens, _ in counted) / during if during > 0 else None,
        }


def _by_system(rows: Iterable[Scored]) -> dict[str, list[Scored]]:
    systems: dict[str, list[Scored]] = {}
    for row in rows:
        systems.setdefault(row.completion.system, []).append(row)
    return dict(sorted(systems.items()))


def _tiers(rows: Sequence[Scored]) -> list[str]:
    """Difficulty classes in the order of their references' mean length, for their names sort badly."""
    lengths: dict[str, list[int]] = {}
    for row in rows:
        if row.sample.tier:
            lengths.setdefault(row.sample.tier, []).append(len(row.sample.target))
    return sorted(lengths, key=lambda tier: (sum(lengths[tier]) / len(lengths[tier]), tier))


def _scores(rows: Sequence[Scored], metric: str) -> list[Row]:
    return [
        (row.sample.group, score.value, score.reason) for row in rows for score in row.scores if score.metric == metric
    ]


def _outcome(row: Scored) -> tuple[str, str] | None:
    """Return a row's group and the sandbox's outcome, if its answer was run."""
    status = next((score.evidence["status"] for score in row.scores if "status" in score.evidence), None)
    ran = status is not None and row.completion.finish != "error"
    return (row.sample.group, status) if ran and status else None


def _shares(outcomes: Sequence[tuple[str, str]], status: str) -> list[Row]:
    return [
        (group, None, "the sandbox failed") if found == "infrastructure" else (group, float(found == status), "")
        for group, found in outcomes
    ]


def _form(task: Task, rows: Sequence[Scored], name: str) -> list[Row]:
    return [
        (row.sample.group, None, row.completion.reason)
        if row.completion.finish == "error"
        else (row.sample.group, float(_holds(task, row, name)), "")
        for row in rows
    ]


def _holds(task: Task, row: Scored, name: str) -> bool:
    return row.completion.finish == "stop" if name == "stopped" else task.well_formed(row.answer)


def _pass_at(k: int, rows: Sequence[Scored]) -> list[Row]:
    """Estimate pass@k of every sample; one that has an answer without a verdict is unscored as a whole."""
    samples: dict[str, list[Row]] = {}
    for row, score in zip(rows, _scores(rows, "pass_at_1"), strict=True):
        samples.setdefault(row.sample.id, []).append(score)
    return [_estimate(k, answers) for answers in samples.values()]


def _estimate(k: int, answers: Sequence[Row]) -> Row:
    for answer in answers:
        if answer[1] is None:
            return answer
    return answers[0][0], pass_at_k(len(answers), sum(value == 1.0 for _, value, _ in answers), k), ""
