"""report.html: one page that holds everything, asks the network for nothing and trusts no text in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from statistics import median
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bilora.evaluation.charts import difference_bar, interval_bar, line_chart
from bilora.evaluation.results import OWN
from bilora.evaluation.table import scale_of, table
from bilora.storage import dump_json

SAMPLES = 10
MAX_CHARS = 4000
WORDS = {
    "pass": ("Passes", "may be published"),
    "regressed": ("Regressed", "worse than what it is measured against"),
    "inconclusive": ("Inconclusive", "not enough evidence to publish"),
    "incomparable": ("Incomparable", "measured under other conditions"),
    "none": ("No verdict", "the gate did not run"),
}
_ODD = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


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
        drops: data-process's report by task: `read`, `kept` and `rules`, which maps a rule to its
            `count` and `examples`; `licences` and `sources`, if present, count the kept samples.
        runs: the run record by task.
        curves: points by task with `step` and any of `loss`, `tokens_per_s` and further numbers,
            each of which gets its own chart.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=visible, trim_blocks=True)
    template = environment.from_string(
        files("bilora.evaluation").joinpath("report.html.jinja").read_text(encoding="utf-8")
    )
    tasks = [
        _task(name, task, drops.get(name), runs.get(name), curves.get(name, ()))
        for name, task in results["tasks"].items()
    ]
    return template.render(
        profile=results["profile"],
        own=OWN,
        tasks=tasks,
        passed=sum(task["outcome"] == "pass" for task in tasks),
        table=_drawn(table(results)),
    )


def _drawn(plain: dict[str, Any]) -> dict[str, Any]:
    for section in plain["sections"]:
        for row in section["rows"]:
            measured = [cell for cell in row["cells"].values() if "mean" in cell]
            top = max((cell["high"] or cell["mean"] for cell in measured), default=0.0)
            for cell in measured:
                cell["bar"] = interval_bar(cell["low"], cell["mean"], cell["high"], top)
    return plain


def _task(
    name: str,
    task: Mapping[str, Any],
    drops: Mapping[str, Any] | None,
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
        "drops": _drops(drops),
        "charts": _charts(curve),
        "samples": _samples(name, task),
        "run": _run(run),
    }


def _provenance(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Count the measured samples by source and licence, and name the groups they come from."""
    found: dict[tuple[str, str], list[str]] = {}
    for sample in task["samples"].values():
        found.setdefault((sample["source"], sample["licence"]), []).append(sample["group"])
    return [
        {"source": source, "licence": licence, "n": len(groups), "groups": _listed(sorted(set(groups)))}
        for (source, licence), groups in sorted(found.items())
    ]


def _listed(names: Sequence[str], limit: int = 12) -> str:
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def _drops(report: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if report is None:
        return None
    rules = [
        {"rule": rule, "count": found["count"], "examples": [_plain(one) for one in found["examples"][:3]]}
        for rule, found in report["rules"].items()
    ]
    rules.sort(key=lambda one: (-one["count"], one["rule"]))
    top = max((one["count"] for one in rules), default=0)
    for one in rules:
        one["bar"] = interval_bar(0.0, one["count"], one["count"], top)
    tallies = [(title, report[title]) for title in ("licences", "sources") if report.get(title)]
    return {"read": report["read"], "kept": report["kept"], "rules": rules, "tallies": tallies}


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else dump_json(value, indent=2)


def _charts(curve: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    names = list(dict.fromkeys(["loss", *(key for point in curve for key in point)]))
    charts = []
    for name in names:
        if name in ("step", "task"):
            continue
        points = [
            (float(point["step"]), float(point[name])) for point in curve if _is_number(point.get(name))
        ]
        if points:
            label = {"loss": "Training loss", "tokens_per_s": "Tokens per second"}.get(name, name)
            drawing = line_chart(points, label=label, dots=len(points) <= 30)
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


KINDS = {
    (True, True): "both right",
    (True, False): "only the adapter right",
    (False, True): "only the base right",
    (False, False): "both wrong",
}


def _samples(name: str, task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Pick samples in turn from each kind of outcome, so that successes and failures both show."""
    dataset = "test" if "test" in task["summary"] else "curated"
    answers: dict[str, dict[str, Any]] = {}
    for row in task["rows"]:
        if row["dataset"] == dataset and row["system"] in (name, "base"):
            answers.setdefault(row["sample_id"], {})[OWN if row["system"] == name else "base"] = row
    good = _good(answers, task["headline"])
    kinds: dict[str, list[str]] = {kind: [] for kind in KINDS.values()}
    for sample_id in sorted(answers):
        right = good[sample_id]
        kinds[KINDS[right.get(OWN, False), right.get("base", False)]].append(sample_id)
    turns = [
        (turn, order, sample_id, kind)
        for order, (kind, ids) in enumerate(kinds.items())
        for turn, sample_id in enumerate(ids)
    ]
    graded = not _all_or_nothing(answers, task["headline"])
    return [
        {
            "kind": kind.replace("right", "above the median").replace("wrong", "below it")
            if graded
            else kind,
            "sample": task["samples"][sample_id],
            "answers": [
                _answer(system, answers[sample_id][system], good[sample_id].get(system))
                for system in ("base", OWN)
                if system in answers[sample_id]
            ],
        }
        for _, _, sample_id, kind in sorted(turns)[:SAMPLES]
    ]


def _values(answers: Mapping[str, Mapping[str, Any]], metric: str) -> list[float]:
    found = [row["scores"].get(metric, {}).get("value") for both in answers.values() for row in both.values()]
    return [value for value in found if value is not None]


def _all_or_nothing(answers: Mapping[str, Mapping[str, Any]], metric: str) -> bool:
    return all(value in (0.0, 1.0) for value in _values(answers, metric))


def _good(answers: Mapping[str, Mapping[str, Any]], metric: str) -> dict[str, dict[str, bool]]:
    """Tell which answers are right; where scores are graded, which are above the common median."""
    values = _values(answers, metric)
    bar = 1.0 if _all_or_nothing(answers, metric) else median(values)
    good: dict[str, dict[str, bool]] = {}
    for sample_id, both in answers.items():
        known = {system: row["scores"].get(metric, {}).get("value") for system, row in both.items()}
        good[sample_id] = {
            system: value == 1.0 or value > bar for system, value in known.items() if value is not None
        }
    return good


def _answer(system: str, row: Mapping[str, Any], right: bool | None) -> dict[str, Any]:
    scores = []
    for metric, score in row["scores"].items():
        scale = scale_of(metric)
        text = "unscored" if score["value"] is None else scale.text(score["value"])
        scores.append({"label": scale.label, "text": text, "reason": score["reason"]})
    facts = [f"{row['output_tokens']} tokens", f"{row['latency_s']:.2f} s"]
    if row["finish"] != "stop":
        facts.append({"length": "cut off by the token limit", "error": "no answer came back"}[row["finish"]])
    mark = {True: "good", False: "bad", None: "unknown"}[right]
    return {
        "system": system,
        "mark": mark,
        "text": row["answer"],
        "scores": scores,
        "facts": " · ".join(facts),
    }
