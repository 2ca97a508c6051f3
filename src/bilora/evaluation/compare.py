"""Compare two measurements of a task sample by sample, as the gate compares with a promoted adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bilora.errors import BadData
from bilora.evaluation.evidence import GateSettings
from bilora.evaluation.gate import check_outcome, difference_text, points_text
from bilora.evaluation.statistics import score_difference
from bilora.records import Interval, Scale
from bilora.results import BaselineEntry, Scores, VerdictOutcome, read_baseline, read_results
from bilora.storage import read_json


@dataclass(frozen=True)
class Comparison:
    """The outcome of comparing one task's measurement with an older one; `reason` contains the numbers."""

    task: str
    outcome: VerdictOutcome
    reason: str


def read_entries(path: Path) -> dict[str, BaselineEntry]:
    """Return each task's entry in a results.json, or its promoted adapter's in a baseline.json.

    Raises:
        BadData: the file is neither, of another schema, or damaged.
    """
    document = read_json(path)
    tasks = document.get("tasks") if isinstance(document, dict) else None
    if not isinstance(tasks, dict):
        raise BadData(path, "is neither a results.json nor a baseline.json.")
    if "profile" in document or any(isinstance(task, dict) and "entry" in task for task in tasks.values()):
        return {name: task.entry for name, task in read_results(path).tasks.items()}
    return {name: incumbents.current for name, incumbents in read_baseline(path).tasks.items()}


def compare(
    new: Path | str, old: Path | str, settings: Callable[[str], GateSettings] | None = None
) -> list[Comparison]:
    """Compare two measurements task by task, sample by sample.

    Args:
        new, old: paths of a results.json or a baseline.json each.
        settings: the gate's settings by task; by default a margin of 0 and at least 100 common samples.

    Raises:
        BadData: a file is neither, of another schema, or damaged.
    """
    newer, older = read_entries(Path(new)), read_entries(Path(old))
    return [
        compare_entries(name, newer[name], older[name], settings(name) if settings else GateSettings())
        if name in newer and name in older
        else Comparison(name, "incomparable", f"only {new if name in newer else old} contains this task")
        for name in sorted(newer.keys() | older.keys())
    ]


def compare_entries(task: str, new: BaselineEntry, old: BaselineEntry, settings: GateSettings) -> Comparison:
    """Compare two measurements of one task on the samples with a score in both."""
    if (new.key, new.metric) != (old.key, old.metric):
        conditions = "data, prompt, decoding, judge or isolation"
        return Comparison(task, "incomparable", f"measured under other conditions ({conditions})")
    left, right = new.scores.get(new.metric, {}), old.scores.get(old.metric, {})
    pairs = _common(left, right)
    if len(pairs) < max(2, settings.min_samples):
        return Comparison(
            task, "inconclusive", f"{len(pairs)} common samples; at least {settings.min_samples} are required"
        )
    difference, scale = _difference(pairs, settings), Scale(label=new.metric)
    numbers = f"{difference_text(difference, scale)}, n {len(pairs)}, margin {points_text(settings.margin, scale)}"
    reason = f"{new.metric} {numbers}"
    for name in sorted(new.guards.keys() & old.guards.keys()):
        reason += f"; guard {name} {_guard_text(new.guards[name], old.guards[name], settings, scale)}"
    return Comparison(task, check_outcome(difference, settings.margin), reason)


def _common(left: Scores, right: Scores) -> list[tuple[float, float]]:
    """Return the score pairs of the samples with a score in both."""
    return [(a, b) for name, a in left.items() if a is not None and (b := right.get(name)) is not None]


def _difference(pairs: Sequence[tuple[float, float]], settings: GateSettings) -> Interval:
    return score_difference([a for a, _ in pairs], [b for _, b in pairs], seed=settings.seed, draws=settings.draws)


def _guard_text(left: Scores, right: Scores, settings: GateSettings, scale: Scale) -> str:
    """Describe the difference of two adapters on a guard; it decides nothing, since the gate compares with the base."""
    pairs = _common(left, right)
    if len(pairs) < 2:
        return "has no pairs"
    return f"{difference_text(_difference(pairs, settings), scale)}, n {len(pairs)}"
