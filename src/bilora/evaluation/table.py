"""The one table that terminal and report both show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bilora.evaluation.run import FLOOR
from bilora.evaluation.summary import DATASETS, OWN

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
    "test_pass_rate": Scale("tests passed", unit=" %"),
    "bleu": Scale("BLEU"),
    "sacrebleu": Scale("sacreBLEU"),
    "chrf": Scale("chrF"),
    "well_formed": Scale("well-formed answers", unit=" %"),
    "stopped": Scale("answers that ended by themselves", unit=" %"),
    "passed_in_process": Scale("passed in the answer's own process only", unit=" %"),
    "missing_module": Scale("needed a module that the sandbox lacks", unit=" %"),
    "judge": Scale("quality", factor=4.0, offset=1.0, unit=" / 5", digits=2),
}
LATENCY = Scale("Average latency", factor=1.0, unit=" s", digits=2)


def scale_of(metric: str) -> Scale:
    """How to write a metric; one that nobody named here is shown times 100."""
    if metric.startswith("pass_at_"):
        return Scale(f"pass@{metric.removeprefix('pass_at_')}", unit=" %")
    return SCALES.get(metric) or Scale(metric.replace("_", " "))


def table(results: Mapping[str, Any]) -> dict[str, Any]:
    """Lay results out as `columns` and `sections` (one a data set) of rows, ready to print or draw.

    A row has `label`, `task`, `metric`, `tier`, `cells` by column and `floors` (name and text);
    where no column was measured and all have one reason, `note` holds it.
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
            row for name, task in results["tasks"].items() for row in _task_rows(name, task, dataset, columns, notes)
        ]
        timed = results["latency_s"][dataset]
        cells = {column: _cell(LATENCY, timed.get(column), _why(column, notes)) for column in columns}
        rows.append(_row(LATENCY.label, cells, task="", metric="latency_s"))
        sections.append({"dataset": dataset, "title": title, "rows": rows})
    return {"columns": columns, "sections": sections, "notes": dict(notes)}


def _columns(results: Mapping[str, Any]) -> list[str]:
    others = set(results["notes"])
    for name, task in results["tasks"].items():
        for part in task["summary"].values():
            others.update(part["systems"].keys() - {name})
    others -= {"base", OWN, *results["tasks"]}
    return ["base", OWN, *sorted(system for system in others if not system.startswith(FLOOR))]


def _row(label: str, cells: dict[str, Cell], **rest: Any) -> dict[str, Any]:
    notes = {cell["note"] for cell in cells.values()}
    measured = any("mean" in cell for cell in cells.values())
    note = notes.pop() if len(notes) == 1 and not measured else ""
    return {"label": label, "cells": cells, "tier": "", "floors": [], "note": note, **rest}


def _task_rows(
    name: str, task: Mapping[str, Any], dataset: str, columns: list[str], notes: Mapping[str, str]
) -> list[dict[str, Any]]:
    part = task["summary"].get(dataset, {"systems": {}, "tiers": []})
    rows = []
    for metric in task["metrics"]:
        if dataset not in (_measured(task, metric) or ["test"]):
            continue
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
        for one in part["tiers"] if metric == task["headline"] else ():
            cells = _cells(name, one["systems"], metric, columns, notes, reason)
            rows.append(_row(label, cells, task=name, metric=metric, tier=one["tier"]))
    return rows


def _measured(task: Mapping[str, Any], metric: str) -> list[str]:
    """Data sets on which a metric was run; one that never ran is told of once, with the test split."""
    return [
        dataset
        for dataset, part in task["summary"].items()
        if any(metric in found["metrics"] for found in part["systems"].values())
    ]


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
        if system in systems:
            found, why = systems[system]["metrics"].get(metric), "answered, but was not scored by this metric"
        else:
            found, why = None, _why(system, notes)
        cells[column] = _cell(scale_of(metric), found, reason or why)
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
        "note": f"{unscored} unscored" if unscored else _spread(found),
    }


def _spread(found: Mapping[str, Any]) -> str:
    """Tell what a mean latency hides."""
    if "median" not in found:
        return ""
    speed = "" if found["tokens_per_s"] is None else f", {found['tokens_per_s']:.0f} tokens/s"
    if found["first_token_s"] is not None:
        speed += f", first token {found['first_token_s']:.2f} s"
    return f"median {LATENCY.text(found['median'])}, p95 {LATENCY.text(found['p95'])}{speed}"
