"""The scores of a run that later adapters are compared with, sample by sample."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from bilora.records import EvalRow
from bilora.results import BaselineEntry, Scores


def scores_of(rows: Iterable[EvalRow], system: str, metric: str) -> Scores:
    """Return the score of every test sample that `system` answered; None where it is unscored."""
    scores: Scores = {}
    for row in rows:
        if row.dataset == "test" and row.completion.system == system:
            value = next((score.value for score in row.scores if score.metric == metric), None)
            scores[row.sample.id] = value if value is not None and math.isfinite(value) else None
    return scores


def baseline_entry(
    task: str, metrics: Sequence[str], rows: Sequence[EvalRow], *, adapter_sha256: str, key: str
) -> BaselineEntry:
    """Return every metric's score of each test sample; `metrics[0]` is the headline."""
    return BaselineEntry(
        adapter_sha256=adapter_sha256,
        key=key,
        metric=metrics[0],
        scores={metric: dict(sorted(scores_of(rows, task, metric).items())) for metric in metrics},
    )
