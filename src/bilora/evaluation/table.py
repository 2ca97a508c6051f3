"""The one table that terminal and report both show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bilora.evaluation.results import DATASETS, FLOOR, OWN

Cell = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How a number is written for people."""

    label: str
    factor: float = 100.0
    offset: float = 0.0
    unit: str = ""
    digits: int = 1

    def number(self, value: float) -> str:
        """Write the bare number."""
        return f"{value * self.factor + self.offset:.{self.digits}f}"

    def text(self, value: float) -> str:
        """Write the number with its unit."""
        return self.number(value) + self.unit


SCALES: Mapping[str, Scale] = {
    "pass_at_1": Scale("pass rate", unit=" %"),
    "test_rate": Scale("tests passed", unit=" %"),
    "bleu": Scale("BLEU"),
    "sacrebleu": Scale("sacreBLEU"),
    "chrf": Scale("chrF"),
    "quality": Scale("quality", factor=4.0, offset=1.0, unit=" / 5", digits=2),
}
LATENCY = Scale("Average latency", factor=1.0, unit=" s", digits=2)


def scale_of(metric: str) -> Scale:
    """How to write a metric; one that nobody named here is shown times 100."""
    return SCALES.get(metric) or Scale(metric.replace("_", " "))


def table(results: Mapping[str, Any]) -> dict[str, Any]:
    """Lay results out as `columns` and `sections` (one a data set) of rows, ready to print or draw.

    A row has `label`, `task`, `metric`, `tier`, `cells` by column and `floors` (name and text).
    A cell has `text`, `interval`, `mean`, `low`, `high`, `n` and `unscored`; or, where nothing was
    measured, `text` "not run" and `note` with the reason. What was not run is never shown as 0.
    """
    columns = _columns(results)
    notes = results["notes"]
    sections = []
    for dataset, title in DATASETS.items():
        if not any(dataset in task["summary"] for task in results["tasks"].values()):
            continue
        rows = [
            row
            for name, task in results["tasks"].items()
            for row in _task_rows(name, task, dataset, columns, notes)
        ]
        timed = results["latency_s"][dataset]
        cells = {column: _cell(LATENCY, timed.get(column), _why(column, notes)) for column in columns}
        rows.append(_row(LATENCY.label, cells, task="", metric="latency_s"))
        sections.append({"dataset": dataset, "title": title, "rows": rows})
    return {"columns": columns, "sections": sections, "notes": dict(notes)}


def _columns(results: Mapping[str, Any]) -> list[str]:
    seen = dict.fromkeys(("base", OWN))
    for name, task in results["tasks"].items():
        for part in task["summary"].values():
            seen.update(dict.fromkeys(OWN if system == name else system for system in part["systems"]))
    seen.update(dict.fromkeys(system for system in results["notes"] if system not in results["tasks"]))
    return [system for system in seen if not system.startswith(FLOOR)]


def _row(label: str, cells: dict[str, Cell], **rest: Any) -> dict[str, Any]:
    return {"label": label, "cells": cells, "tier": "", "floors": [], **rest}


def _task_rows(
    name: str, task: Mapping[str, Any], dataset: str, columns: list[str], notes: Mapping[str, str]
) -> list[dict[str, Any]]:
    part = task["summary"].get(dataset, {"systems": {}, "tiers": {}})
    rows = []
    for metric in task["metrics"]:
        scale = scale_of(metric)
        reason = task["not_run"].get(metric, "")
        label = f"{task['title']} · {scale.label}"
        cells = _cells(name, part["systems"], metric, columns, notes, reason)
        floors = [
            {"name": system.removeprefix(FLOOR), "text": scale.text(found["metrics"][metric]["mean"])}
            for system, found in part["systems"].items()
            if system.startswith(FLOOR) and found["metrics"].get(metric, {}).get("mean") is not None
        ]
        rows.append(_row(label, cells, task=name, metric=metric, floors=floors))
        for tier, systems in part["tiers"].items() if metric == task["headline"] else ():
            cells = _cells(name, systems, metric, columns, notes, reason)
            rows.append(_row(label, cells, task=name, metric=metric, tier=tier))
    return rows


def _cells(
    name: str,
    systems: Mapping[str, Any],
    metric: str,
    columns: list[str],
    notes: Mapping[str, str],
    reason: str,
) -> dict[str, Cell]:
    cells = {}
    for column in columns:
        system = name if column == OWN else column
        found = systems.get(system, {"metrics": {}})["metrics"].get(metric)
        cells[column] = _cell(scale_of(metric), found, reason or _why(system, notes))
    return cells


def _why(system: str, notes: Mapping[str, str]) -> str:
    return notes.get(system) or "not part of this run"


def _cell(scale: Scale, found: Mapping[str, Any] | None, reason: str) -> Cell:
    if found is None:
        return {"text": "not run", "note": reason}
    unscored = found.get("unscored", 0)
    if found["mean"] is None:
        reasons = "; ".join(f"{why} ({count})" for why, count in found["reasons"].items())
        return {"text": "unscored", "note": reasons, "n": 0, "unscored": unscored}
    interval = ""
    if found["low"] is not None:
        interval = f"{scale.number(found['low'])} to {scale.number(found['high'])}"
    return {
        "text": scale.text(found["mean"]),
        "interval": interval,
        **{bound: found[bound] for bound in ("mean", "low", "high", "n")},
        "unscored": unscored,
        "note": f"{unscored} unscored" if unscored else "",
    }
