"""benchmarking/baseline.json: what was promoted, sample by sample, for later adapters to be measured against."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bilora.errors import BadData
from bilora.records import Scored
from bilora.storage import read_json

BASELINE_SCHEMA = 2
CURRENT, CHAMPION = "current", "champion"
"""Of each task: the adapter promoted last, and the best one ever promoted under the same conditions."""

Scores = Mapping[str, float | None]
"""Score by sample id; None where it is unscored."""


def scores_of(rows: Iterable[Scored], system: str, metric: str) -> dict[str, float | None]:
    """Score of every test sample that `system` answered; None where it is unscored."""
    found: dict[str, float | None] = {}
    for row in rows:
        if row.dataset == "test" and row.completion.system == system:
            values = [score.value for score in row.scores if score.metric == metric]
            value = values[0] if values else None
            found[row.sample.id] = value if value is not None and math.isfinite(value) else None
    return found


def baseline_entry(
    task: str, metrics: Sequence[str], rows: Sequence[Scored], *, adapter_sha256: str, key: str
) -> dict[str, Any]:
    """Make what later adapters of this task are compared with: every metric's score of each test sample."""
    return {
        "adapter_sha256": adapter_sha256,
        "key": key,
        "metric": metrics[0],
        "scores": {metric: dict(sorted(scores_of(rows, task, metric).items())) for metric in metrics},
    }


def read_baseline(path: Path) -> dict[str, dict[str, Any]]:
    """Read benchmarking/baseline.json: of each task the `current` and the `champion` entry; an absent file has none.

    Raises:
        BadData: the file is not of this schema.
    """
    if not path.exists():
        return {}
    document = read_json(path)
    if not isinstance(document, dict) or document.get("schema") != BASELINE_SCHEMA:
        raise BadData(path, f"is no baseline of schema {BASELINE_SCHEMA}; restore it from version control.")
    tasks = document.get("tasks")
    if not isinstance(tasks, dict):
        raise BadData(path, "`tasks` must be a mapping.")
    for name, standing in tasks.items():
        if not isinstance(standing, dict) or not all(is_entry(standing.get(place)) for place in (CURRENT, CHAMPION)):
            raise BadData(path, f"the entry of {name!r} is malformed; restore it from version control.")
    return tasks


def is_entry(entry: object) -> bool:
    """Whether this is what `baseline_entry` makes: an adapter, its key, its metric and every metric's scores."""
    return (
        isinstance(entry, dict)
        and all(isinstance(entry.get(field), str) for field in ("adapter_sha256", "key", "metric"))
        and isinstance(entry.get("scores"), dict)
        and all(
            isinstance(scores, dict) and all(_is_score(value) for value in scores.values())
            for scores in entry["scores"].values()
        )
    )


def _is_score(value: object) -> bool:
    if value is None:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value <= 1.0
