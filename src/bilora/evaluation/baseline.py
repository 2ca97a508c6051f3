"""Per-sample scores of a run, with which later adapters are compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from bilora.records import GUARD_PREFIX, Dataset, EvalRow
from bilora.results import BaselineEntry, Scores


def scores_by_sample(rows: Iterable[EvalRow], system: str, metric: str, dataset: Dataset = "test") -> Scores:
    """Return the score of each sample of a dataset that `system` answered; None if unscored."""
    scores: Scores = {}
    for row in rows:
        if row.dataset == dataset and row.completion.system == system:
            value = next((score.value for score in row.scores if score.metric == metric), None)
            scores[row.sample.id] = value if value is not None and math.isfinite(value) else None
    return scores


def baseline_entry(
    task: str, metrics: Sequence[str], rows: Sequence[EvalRow], *, adapter_sha256: str, key: str
) -> BaselineEntry:
    """Return each test sample's score by every metric, and each guard sample's score by the headline, `metrics[0]`."""
    guards = sorted({row.dataset for row in rows if row.dataset.startswith(GUARD_PREFIX)})
    return BaselineEntry(
        adapter_sha256=adapter_sha256,
        key=key,
        metric=metrics[0],
        scores={metric: dict(sorted(scores_by_sample(rows, task, metric).items())) for metric in metrics},
        guards={
            dataset.removeprefix(GUARD_PREFIX): dict(sorted(scores_by_sample(rows, task, metrics[0], dataset).items()))
            for dataset in guards
        },
    )
