"""Which answers the report shows: of each kind of outcome some, the same ones every time."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from bilora.evaluation.run import FLOOR
from bilora.evaluation.summary import OWN
from bilora.evaluation.table import scale_of

SAMPLES = 30
KINDS = (
    "both right",
    "only the adapter right",
    "only the base right",
    "both wrong",
    "both above the median",
    "only the adapter above the median",
    "only the base above the median",
    "both below the median",
    "unscored",
)


def choose(name: str, task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Pick samples in turn from each kind of outcome, so that successes and failures both show."""
    dataset = "test" if "test" in task["summary"] else "curated"
    answers: dict[str, dict[str, Any]] = {}
    for row in task["rows"]:
        if row["dataset"] == dataset and not row["system"].startswith(FLOOR):
            answers.setdefault(row["sample_id"], {})[OWN if row["system"] == name else row["system"]] = row
    sides = {
        sample_id: {system: _value(row, task) for system, row in rows.items() if system in ("base", OWN)}
        for sample_id, rows in answers.items()
    }
    values = [value for side in sides.values() for value in side.values() if value is not None]
    graded = any(value not in (0.0, 1.0) for value in values)
    bar = median(values) if graded else 0.5
    kinds: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for sample_id in sorted(answers):
        kinds[_kind(sides[sample_id], bar, graded)].append(sample_id)
    turns = sorted(
        (turn, order, sample_id, kind)
        for order, (kind, ids) in enumerate(kinds.items())
        for turn, sample_id in enumerate(ids)
    )
    return [
        {
            "kind": kind,
            "sample": task["samples"][sample_id],
            "answers": [
                _answer(system, answers[sample_id][system], task, graded)
                for system in ("base", OWN, *sorted(answers[sample_id].keys() - {"base", OWN}))
                if system in answers[sample_id]
            ],
        }
        for _, _, sample_id, kind in turns[:SAMPLES]
    ]


def _value(row: Mapping[str, Any], task: Mapping[str, Any]) -> float | None:
    value: float | None = row["scores"].get(task["headline"], {}).get("value")
    return value


def _kind(values: Mapping[str, float | None], bar: float, graded: bool) -> str:
    if any(value is None for value in values.values()):
        return "unscored"
    good = {system for system, value in values.items() if value is not None and value > bar}
    up, down = ("above the median", "below the median") if graded else ("right", "wrong")
    if not good:
        return f"both {down}"
    if {"base", OWN} <= good:
        return f"both {up}"
    return f"only the {'adapter' if OWN in good else 'base'} {up}"


def _answer(system: str, row: Mapping[str, Any], task: Mapping[str, Any], graded: bool) -> dict[str, Any]:
    scores = []
    for metric in task["metrics"]:
        if (score := row["scores"].get(metric)) is None:
            continue
        scale = scale_of(metric)
        text = "unscored" if score["value"] is None else scale.text(score["value"])
        evidence = score["evidence"]
        scores.append(
            {
                "label": scale.label,
                "text": text,
                "reason": score["reason"],
                "evidence": " · ".join(filter(None, (evidence.get("judge"), evidence.get("isolation")))),
            }
        )
    tokens = row["output_tokens"]
    facts = [*([] if tokens is None else [f"{tokens} tokens"]), f"{row['latency_s']:.2f} s"]
    if row["finish"] != "stop":
        facts.append({"length": "cut off by the token limit", "error": "no answer came back"}[row["finish"]])
    value = _value(row, task)
    mark = "unknown" if value is None else "graded" if graded else "good" if value == 1.0 else "bad"
    return {
        "system": system,
        "mark": mark,
        "text": row["answer"],
        "scores": scores,
        "facts": " · ".join(facts),
    }
