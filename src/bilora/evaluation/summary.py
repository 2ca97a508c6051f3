"""Summarize rows: means with confidence intervals by dataset, system and tier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bilora.evaluation.derived import (
    FORM_SHARES,
    GroupedValue,
    form_values,
    outcome_values,
    pass_at_k_name,
    pass_at_k_values,
    score_values,
)
from bilora.evaluation.run import TRIVIAL_PREFIX
from bilora.evaluation.statistics import bootstrap_mean, score_interval
from bilora.metrics.functional import OUTCOME_SHARES
from bilora.records import GUARD_PREFIX, Dataset, EvalRow
from bilora.results import DatasetSummary, LatencySummary, MetricSummary, SystemSummary, TierSummary
from bilora.tasks.task import Task

ADAPTER_COLUMN = "bilora"
"""The column of all adapters together."""
DATASET_TITLES: Mapping[Dataset, str] = {
    "test": "Held-out test split",
    "hidden": "Held-out test split, tests hidden",
    "sampled": "Held-out test split, several answers per sample",
    "curated": "Curated evaluation set",
}
"""Titles of the datasets that every task may have, in display order; guards follow them."""


def dataset_order(datasets: Iterable[Dataset]) -> list[Dataset]:
    """Return the distinct datasets in display order."""
    distinct = set(datasets)
    return [name for name in DATASET_TITLES if name in distinct] + sorted(distinct - DATASET_TITLES.keys())


@dataclass(frozen=True)
class Summarizer:
    """Summarizes rows. `seed` and `draws` are the bootstrap's, `k` are those for which pass@k is estimated."""

    seed: int
    draws: int = 10_000
    k: Sequence[int] = ()

    def dataset(self, task: Task, dataset: str, rows: Sequence[EvalRow], metrics: Sequence[str]) -> DatasetSummary:
        """Return one dataset's summary by system, and its headline's by tier and system."""
        return DatasetSummary(
            systems={
                system: self._system(task, dataset, system_rows, metrics)
                for system, system_rows in _by_system(rows).items()
            },
            tiers=tuple(
                TierSummary(
                    tier=tier,
                    systems={
                        system: self._metrics(task, dataset, system_rows, [task.headline])
                        for system, system_rows in _by_system([row for row in rows if row.sample.tier == tier]).items()
                    },
                )
                for tier in _tiers(rows)
            ),
        )

    def _system(self, task: Task, dataset: str, rows: Sequence[EvalRow], metrics: Sequence[str]) -> SystemSummary:
        measured = self._metrics(task, dataset, rows, metrics)
        if (dataset == "test" or dataset.startswith(GUARD_PREFIX)) and not rows[0].completion.system.startswith(
            TRIVIAL_PREFIX
        ):
            measured |= {name: self._mean(form_values(task, rows, name)) for name in FORM_SHARES}
            measured |= {name: self._mean(values) for name in OUTCOME_SHARES if (values := outcome_values(rows, name))}
        return SystemSummary(
            n=len(rows),
            errors=sum(row.completion.finish == "error" for row in rows),
            cut=sum(row.completion.finish == "length" for row in rows),
            metrics=measured,
            latency_s=self._latency([row for row in rows if row.completion.finish != "error"]),
            output_tokens=_total([row.completion.output_tokens for row in rows]),
        )

    def _metrics(
        self, task: Task, dataset: str, rows: Sequence[EvalRow], metrics: Sequence[str]
    ) -> dict[str, MetricSummary]:
        if dataset == "sampled" and task.execution_metric:
            return {pass_at_k_name(k): self._mean(pass_at_k_values(rows, task.execution_metric, k)) for k in self.k}
        return {metric: self._mean(values) for metric in metrics if (values := score_values(rows, metric))}

    def _mean(self, rows: Sequence[GroupedValue]) -> MetricSummary:
        scored = [(row.group, row.value) for row in rows if row.value is not None]
        values = [value for _, value in scored]
        interval = score_interval(values, seed=self.seed, draws=self.draws, clusters=[group for group, _ in scored])
        reasons = Counter(row.reason or "no reason given" for row in rows if row.value is None)
        return MetricSummary(
            n=len(values),
            unscored=len(rows) - len(values),
            reasons=dict(sorted(reasons.items())),
            mean=sum(values) / len(values) if values else None,
            low=interval.low if interval else None,
            high=interval.high if interval else None,
        )

    def pooled_latency(self, rows: Mapping[str, Sequence[EvalRow]]) -> dict[Dataset, dict[str, LatencySummary | None]]:
        """Return the latency of each column over all tasks, by dataset.

        Args:
            rows: by task.
        """
        guards = {row.dataset for task_rows in rows.values() for row in task_rows} - DATASET_TITLES.keys()
        columns: dict[Dataset, dict[str, list[EvalRow]]] = {name: {} for name in [*DATASET_TITLES, *sorted(guards)]}
        for task, task_rows in rows.items():
            for row in task_rows:
                system = ADAPTER_COLUMN if row.completion.system == task else row.completion.system
                if row.completion.finish != "error" and not system.startswith(TRIVIAL_PREFIX):
                    columns[row.dataset].setdefault(system, []).append(row)
        return {
            dataset: {system: self._latency(system_rows) for system, system_rows in systems.items()}
            for dataset, systems in columns.items()
        }

    def _latency(self, rows: Sequence[EvalRow]) -> LatencySummary | None:
        completions = [row.completion for row in rows]
        seconds = [completion.latency_s for completion in completions]
        if not seconds or all(completion.system.startswith(TRIVIAL_PREFIX) for completion in completions):
            return None
        interval = bootstrap_mean(seconds, seed=self.seed, draws=self.draws) if len(seconds) > 1 else None
        counted = [completion for completion in completions if completion.output_tokens is not None]
        counted_s = sum(completion.latency_s for completion in counted)
        first_token_s = [completion.first_token_s for completion in completions if completion.first_token_s is not None]
        return LatencySummary(
            n=len(seconds),
            mean=float(np.mean(seconds)),
            low=max(0.0, interval.low) if interval else None,
            high=interval.high if interval else None,
            median=float(np.median(seconds)),
            p95=float(np.quantile(seconds, 0.95)),
            first_token_s=float(np.median(first_token_s)) if first_token_s else None,
            tokens_per_s=sum(completion.output_tokens or 0 for completion in counted) / counted_s
            if counted_s > 0
            else None,
        )


def _total(counts: Sequence[int | None]) -> int | None:
    """Return the sum; None if one is unknown."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _by_system(rows: Iterable[EvalRow]) -> dict[str, list[EvalRow]]:
    systems: dict[str, list[EvalRow]] = {}
    for row in rows:
        systems.setdefault(row.completion.system, []).append(row)
    return dict(sorted(systems.items()))


def _tiers(rows: Sequence[EvalRow]) -> list[str]:
    """Return the tiers by their references' mean length, because sorted by name "three" would precede "two"."""
    lengths: dict[str, list[int]] = {}
    for row in rows:
        if row.sample.tier:
            lengths.setdefault(row.sample.tier, []).append(len(row.sample.target))
    return sorted(lengths, key=lambda tier: (sum(lengths[tier]) / len(lengths[tier]), tier))
