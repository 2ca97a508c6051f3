"""report.html: one page that holds everything, asks the network for nothing and trusts no text in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bilora.evaluation.charts import difference_bar, interval_bar, line_chart
from bilora.evaluation.examples import choose
from bilora.evaluation.summary import OWN
from bilora.evaluation.table import scale_of, table
from bilora.storage import dump_json

MAX_CHARS = 4000
WORDS = {
    "pass": ("Passes", "may be published"),
    "regressed": ("Regressed", "worse than what it is measured against"),
    "inconclusive": ("Inconclusive", "not enough evidence to publish"),
    "incomparable": ("Incomparable", "measured under other conditions"),
    "none": ("No verdict", "the gate did not run"),
}
_ODD = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def visible(value: Any) -> Any:
    """Make text fit to be seen: control and direction characters become signs, long text is cut.

    Jinja applies it to every expression of the page, before escaping.
    """
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    kept = value[:MAX_CHARS].replace("\r\n", "\n")
    shown = _ODD.sub(_sign, kept)
    rest = len(value) - MAX_CHARS
    return f"{shown}\n… cut here, {rest:,} more characters" if rest > 0 else shown


def _sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"⟨U+{code:04X}⟩"


def render(
    results: Mapping[str, Any],
    *,
    drops: Mapping[str, Mapping[str, Any]],
    runs: Mapping[str, Mapping[str, Any]],
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
) -> str:
    """Render the report of one benchmark run.

    Args:
        results: see `build_results`.
        drops: by task, the reports of data-process and data-split under these names (either may lack).
        runs: the run record by task.
        curves: the lines of metrics.jsonl by task: `step` and any of `loss`, `metric`,
            `validation_loss`, `tokens_per_s`; a further number gets its own chart.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=visible, trim_blocks=True)
    template = environment.from_string(
        files("bilora.evaluation").joinpath("report.html.jinja").read_text(encoding="utf-8")
    )
    tasks = [
        _task(name, task, drops.get(name, {}), runs.get(name), curves.get(name, ()))
        for name, task in results["tasks"].items()
    ]
    return template.render(
        profile=results["profile"],
        own=OWN,
        tasks=tasks,
        remarks=results["judge"],
        passed=sum(task["outcome"] == "pass" for task in tasks),
        table=with_bars(table(results)),
    )


def with_bars(plain: dict[str, Any]) -> dict[str, Any]:
    """Draw a bar into each measured cell of the table, on one track per row."""
    for section in plain["sections"]:
        for row in section["rows"]:
            measured = [cell for cell in row["cells"].values() if "mean" in cell]
            shares = scale_of(row["metric"]).unit == " %"  # of all answers, so the track ends at all of them
            top = 1.0 if shares else max((cell["high"] or cell["mean"] for cell in measured), default=0.0)
            for cell in measured:
                cell["bar"] = interval_bar(cell["low"], cell["mean"], cell["high"], top)
    return plain


def _task(
    name: str,
    task: Mapping[str, Any],
    drops: Mapping[str, Any],
    run: Mapping[str, Any] | None,
    curve: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    verdict = task["verdict"]
    outcome = verdict["outcome"] if verdict else "none"
    bar = Markup("")
    if verdict and verdict["low"] is not None:
        bar = difference_bar(verdict["low"], verdict["delta"], verdict["high"], verdict["margin"])
    return {
        "name": name,
        "title": task["title"],
        "headline": scale_of(task["headline"]).label,
        "outcome": outcome,
        "word": WORDS[outcome],
        "verdict": verdict,
        "bar": bar,
        "adapter_sha256": task["adapter_sha256"],
        "key": task["key"],
        "provenance": _provenance(task),
        "stages": _stages(drops),
        "charts": _charts(curve),
        "samples": (samples := choose(name, task)),
        "kinds": list(dict.fromkeys(one["kind"] for one in samples)),
        "run": _run(run),
    }


def _provenance(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Count the measured samples by kind of source and licence, and name where they come from."""
    found: dict[tuple[str, str], list[str]] = {}
    for sample in task["samples"].values():
        kind, _, rest = sample["source"].partition(":")
        package = rest.partition(":")[0]
        origin = package if "==" in package else sample["group"]
        found.setdefault((kind, sample["licence"]), []).append(origin)
    return [
        {"source": source, "licence": licence, "n": len(origins), "origins": _listed(sorted(set(origins)))}
        for (source, licence), origins in sorted(found.items())
    ]


def _listed(names: Sequence[str], limit: int = 12) -> str:
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def _stages(reports: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Lay out what each data stage read, kept and refused."""
    stages = []
    for name in ("data-process", "data-split"):
        if name not in reports:
            continue
        report = reports[name]
        top = max((rule["count"] for rule in report["rules"]), default=0)
        rules = [
            {
                "rule": rule["rule"],
                "count": rule["count"],
                "bar": interval_bar(0.0, rule["count"], rule["count"], top),
                "examples": [_example(example) for example in rule["examples"][:3]],
            }
            for rule in sorted(report["rules"], key=lambda rule: (-rule["count"], rule["rule"]))
        ]
        splits = [
            {
                "name": split,
                "rows": found["rows"],
                "groups": found["groups"],
                "licences": _counted(found["licence"]),
            }
            for split, found in report.get("splits", {}).items()
        ]
        stages.append(
            {
                "name": name,
                "read": report["rows_in"],
                "kept": report["rows_out"],
                "rules": rules,
                "splits": splits,
            }
        )
    return stages


def _counted(counts: Mapping[str, int]) -> str:
    return _listed([f"{name} {count}" for name, count in sorted(counts.items(), key=lambda one: (-one[1], one[0]))])


def _example(example: Mapping[str, str]) -> str:
    return "\n".join(part for part in (example["source"], example["detail"], example["excerpt"]) if part)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else dump_json(value, indent=2)


CHARTS = {
    "loss": "Training loss",
    "metric": "Headline score on validation",
    "validation_loss": "Validation loss",
    "tokens_per_s": "Tokens per second",
}


def _charts(curve: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    names = dict.fromkeys([*CHARTS, *sorted({key for point in curve for key in point} - {"step", *CHARTS})])
    charts = []
    for name in names:
        points = [(float(point["step"]), float(point[name])) for point in curve if _is_number(point.get(name))]
        if points:
            label = CHARTS.get(name, name)
            drawing = line_chart(points, label=visible(label), dots=len(points) <= 30)
            charts.append({"label": label, "svg": drawing, "last": f"{points[-1][1]:.4g}"})
    return charts


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _run(run: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Flatten a run record to one line a fact; the parameters stay a block of JSON."""
    lines = []
    for key, value in (run or {}).items():
        if key != "params" and isinstance(value, Mapping):
            lines += [(f"{key} · {inner}", _plain(found)) for inner, found in sorted(value.items())]
        else:
            lines.append((key, _plain(value)))
    return lines
