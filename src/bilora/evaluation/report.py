"""report.html: one self-contained page that loads nothing from the network and escapes all text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from bilora.data_reports import StageReport
from bilora.evaluation.charts import difference_bar, interval_bar, line_chart
from bilora.evaluation.data_views import Provenance, StageView, provenance, stage_views
from bilora.evaluation.examples import Example, Failures, choose_examples, curated_failures
from bilora.evaluation.glossary import glossary
from bilora.evaluation.guard_checks import GuardView, guard_views
from bilora.evaluation.run_views import is_number, run_lines, time_and_memory
from bilora.evaluation.table import Table, TableRow, build_table
from bilora.records import Interval, Scale
from bilora.results import GuardCheck, Results, TaskResults, Verdict
from bilora.sweep_results import Sweep

MAX_TEXT_CHARS = 4000
OUTCOME_LABELS = {
    "pass": ("Passes", "may be published"),
    "regressed": ("Regressed", "worse than the base or a promoted adapter"),
    "inconclusive": ("Inconclusive", "not enough evidence to publish"),
    "incomparable": ("Incomparable", "measured under other conditions than the promoted adapter"),
    "none": ("No verdict", "the gate did not run"),
}
HEADLINE_KEY = "metric"
"""The headline's key in metrics.jsonl."""
CHART_LABELS = {
    "loss": "Training loss",
    HEADLINE_KEY: "on validation",
    "validation_loss": "Validation loss",
    "tokens_per_s": "Tokens per second",
}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")

CurvePoint = Mapping[str, object]
"""A line of metrics.jsonl: `step` and any numbers."""


def printable(value: object) -> object:
    """Return text with control and direction characters made visible, cut if long; return other values unchanged.

    Jinja applies it to every expression of the page, before escaping.
    """
    return value if isinstance(value, Markup) or not isinstance(value, str) else _printable_text(value)


def _printable_text(text: str) -> str:
    cut = _CONTROL.sub(_visible_character, text[:MAX_TEXT_CHARS].replace("\r\n", "\n"))
    omitted = len(text) - MAX_TEXT_CHARS
    return f"{cut}\n… cut here, {omitted:,} more characters" if omitted > 0 else cut


def _visible_character(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"⟨U+{code:04X}⟩"


@dataclass(frozen=True)
class TaskArtifacts:
    """A task's other files that the report shows beside its results.

    Attributes:
        reports: the reports of data-process and data-split, by stage; either may be missing.
        run: the run record.
        curve: the lines of metrics.jsonl: `step` and any of `loss`, `metric`, `validation_loss`, `tokens_per_s`.
            Other numbers get charts of their own.
        sweep: the task's last sweep.
    """

    reports: Mapping[str, StageReport] = field(default_factory=dict)
    run: Mapping[str, object] = field(default_factory=dict)
    curve: Sequence[CurvePoint] = ()
    sweep: Sweep | None = None


@dataclass(frozen=True)
class Chart:
    """A training curve."""

    label: str
    svg: Markup
    last: str


@dataclass(frozen=True)
class TaskView:
    """One task's section of the page."""

    name: str
    title: str
    headline: str
    outcome: str
    verdict: Verdict | None
    bar: Markup
    trivial_remark: str
    failures: Failures
    guards: Sequence[tuple[GuardView, Markup]]
    adapter_sha256: str
    key: str
    provenance: Sequence[Provenance]
    stages: Sequence[StageView]
    charts: Sequence[Chart]
    samples: Sequence[Example]
    run: Sequence[tuple[str, str]]
    training_cost: str
    sweep: Sweep | None
    scale: Scale

    @property
    def outcome_label(self) -> tuple[str, str]:
        """The outcome's display name and its meaning."""
        return OUTCOME_LABELS[self.outcome]

    @property
    def kinds(self) -> list[str]:
        """The distinct kinds of outcome among the samples."""
        return list(dict.fromkeys(sample.kind for sample in self.samples))


def render_report(results: Results, artifacts: Mapping[str, TaskArtifacts]) -> str:
    """Return the HTML report of one benchmark run.

    Args:
        artifacts: by task; tasks may be missing.
    """
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=printable,
        trim_blocks=True,
        loader=FunctionLoader(lambda name: files("bilora.evaluation").joinpath(name).read_text(encoding="utf-8")),
    )
    table = build_table(results)
    remarks = {row.task: row.trivial_remark for row in _headline_rows(results, table)}
    tasks = [
        _task_view(name, task, artifacts.get(name, TaskArtifacts()), remarks.get(name, ""))
        for name, task in results.tasks.items()
    ]
    return environment.get_template("report.html.jinja").render(
        profile=results.profile,
        tasks=tasks,
        failures=[task for task in tasks if task.failures.remark],
        remarks=results.judge,
        passed=sum(task.outcome == "pass" for task in tasks),
        table=with_bars(table),
        glossary=glossary(results, table),
    )


def _headline_rows(results: Results, table: Table) -> list[TableRow]:
    """Return the row of each task's headline on the test split."""
    headlines = {(name, task.headline) for name, task in results.tasks.items()}
    rows = [row for section in table.sections if section.dataset == "test" for row in section.rows]
    return [row for row in rows if not row.tier and (row.task, row.metric) in headlines]


def with_bars(table: Table) -> Table:
    """Return the table with a bar in each measured cell; the bars of a row have the same scale."""
    sections = [replace(section, rows=[_row_with_bars(row) for row in section.rows]) for section in table.sections]
    return replace(table, sections=sections)


def _row_with_bars(row: TableRow) -> TableRow:
    if row.scale.unit == " %":  # a share, so the track ends at 100 %
        top = 1.0
    else:
        top = max((cell.high or cell.mean for cell in row.cells.values() if cell.mean is not None), default=0.0)
    cells = {
        column: cell if cell.mean is None else replace(cell, bar=interval_bar(cell.low, cell.mean, cell.high, top))
        for column, cell in row.cells.items()
    }
    return replace(row, cells=cells)


def _task_view(name: str, task: TaskResults, artifacts: TaskArtifacts, trivial_remark: str) -> TaskView:
    scale = task.scales[task.headline]
    return TaskView(
        name=name,
        title=task.title,
        headline=scale.label,
        outcome=task.verdict.outcome if task.verdict else "none",
        verdict=task.verdict,
        bar=_verdict_bar(task),
        trivial_remark=trivial_remark,
        guards=[
            (view, _difference_bar(view.check, 0.0, task.scales[view.check.metric])) for view in guard_views(name, task)
        ],
        failures=curated_failures(name, task),
        adapter_sha256=task.adapter_sha256,
        key=task.key,
        provenance=provenance(task),
        stages=stage_views(artifacts.reports),
        charts=_charts(artifacts.curve, scale),
        samples=choose_examples(name, task),
        run=run_lines(artifacts.run),
        training_cost=time_and_memory(artifacts.run),
        sweep=artifacts.sweep,
        scale=scale,
    )


def _verdict_bar(task: TaskResults) -> Markup:
    verdict = task.verdict
    return _difference_bar(verdict, verdict.margin, task.scales[verdict.metric]) if verdict else Markup("")


def _difference_bar(check: Verdict | GuardCheck, margin: float, scale: Scale) -> Markup:
    if check.low is None or check.delta is None or check.high is None:
        return Markup("")
    return difference_bar(Interval(low=check.low, mean=check.delta, high=check.high), margin, scale)


def _charts(curve: Sequence[CurvePoint], scale: Scale) -> list[Chart]:
    names = dict.fromkeys([*CHART_LABELS, *sorted({key for point in curve for key in point} - {"step", *CHART_LABELS})])
    charts = []
    for name in names:
        points = [
            (float(step), float(value))
            for point in curve
            if is_number(step := point.get("step")) and is_number(value := point.get(name))
        ]
        label = CHART_LABELS.get(name, name)
        if name == HEADLINE_KEY:
            points = [(step, value * scale.factor + scale.offset) for step, value in points]
            label = f"{scale.label}{scale.unit} {label}"
        if points:
            svg = line_chart(points, label=_printable_text(label), dots=len(points) <= 30)
            charts.append(Chart(label, svg, f"{points[-1][1]:.4g}"))
    return charts
