"""report.html: one page that holds everything, loads nothing from the network and trusts no text in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bilora.data_reports import DropExample, SplitReport, StageReport
from bilora.evaluation.charts import difference_bar, interval_bar, line_chart
from bilora.evaluation.examples import Example, choose_examples
from bilora.evaluation.guarded import ShownGuard, shown_guards
from bilora.evaluation.run_facts import is_number, run_lines, time_and_memory
from bilora.evaluation.table import Table, TableRow, table
from bilora.records import Scale
from bilora.results import Results, TaskResults, Verdict
from bilora.sweeps import Sweep

MAX_TEXT_CHARS = 4000
WORDS = {
    "pass": ("Passes", "may be published"),
    "regressed": ("Regressed", "worse than what it is measured against"),
    "inconclusive": ("Inconclusive", "not enough evidence to publish"),
    "incomparable": ("Incomparable", "measured under other conditions"),
    "none": ("No verdict", "the gate did not run"),
}
CHARTS = {
    "loss": "Training loss",
    "metric": "Headline score on validation",
    "validation_loss": "Validation loss",
    "tokens_per_s": "Tokens per second",
}
_ODD = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")

CurvePoint = Mapping[str, object]
"""A line of metrics.jsonl: `step` and any numbers."""


def visible(value: object) -> object:
    """Replace control and direction characters by signs and cut long text; return anything but text as it is.

    Jinja applies it to every expression of the page, before escaping.
    """
    return value if isinstance(value, Markup) or not isinstance(value, str) else _visible_text(value)


def _visible_text(text: str) -> str:
    shown = _ODD.sub(_sign, text[:MAX_TEXT_CHARS].replace("\r\n", "\n"))
    rest = len(text) - MAX_TEXT_CHARS
    return f"{shown}\n… cut here, {rest:,} more characters" if rest > 0 else shown


def _sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"⟨U+{code:04X}⟩"


@dataclass(frozen=True)
class Background:
    """What is known of a task's adapter beside its results.

    Attributes:
        reports: of data-process and data-split by these names; either may lack.
        run: the run record.
        curve: the lines of metrics.jsonl: `step` and any of `loss`, `metric`, `validation_loss`, `tokens_per_s`;
            a further number gets its own chart.
        sweep: the last sweep of the task's settings.
    """

    reports: Mapping[str, StageReport] = field(default_factory=dict)
    run: Mapping[str, object] = field(default_factory=dict)
    curve: Sequence[CurvePoint] = ()
    sweep: Sweep | None = None


@dataclass(frozen=True)
class Provenance:
    """Measured samples of one kind of source and licence."""

    source: str
    licence: str
    n: int
    origins: str


@dataclass(frozen=True)
class ShownRule:
    """A rule of a data stage with the number of rows that it refused."""

    rule: str
    count: int
    bar: Markup
    examples: Sequence[str]


@dataclass(frozen=True)
class ShownSplit:
    """A split's size and licences."""

    name: str
    rows: int
    groups: int
    licences: str


@dataclass(frozen=True)
class ShownStage:
    """What a data stage read, kept and refused."""

    name: str
    read: int
    kept: int
    rules: Sequence[ShownRule]
    splits: Sequence[ShownSplit]


@dataclass(frozen=True)
class Chart:
    """A curve of the training run."""

    label: str
    svg: Markup
    last: str


@dataclass(frozen=True)
class ShownTask:
    """One task's part of the page."""

    name: str
    title: str
    headline: str
    outcome: str
    verdict: Verdict | None
    bar: Markup
    guards: Sequence[tuple[ShownGuard, Markup]]
    adapter_sha256: str
    key: str
    provenance: Sequence[Provenance]
    stages: Sequence[ShownStage]
    charts: Sequence[Chart]
    samples: Sequence[Example]
    run: Sequence[tuple[str, str]]
    took: str
    sweep: Sweep | None
    scale: Scale

    @property
    def word(self) -> tuple[str, str]:
        """The outcome in words, and what it means."""
        return WORDS[self.outcome]

    @property
    def kinds(self) -> list[str]:
        """The kinds of outcome among the samples."""
        return list(dict.fromkeys(one.kind for one in self.samples))


def render_report(results: Results, background: Mapping[str, Background]) -> str:
    """Render the report of one benchmark run.

    Args:
        background: by task; a task may lack.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=visible, trim_blocks=True)
    template = environment.from_string(
        files("bilora.evaluation").joinpath("report.html.jinja").read_text(encoding="utf-8")
    )
    tasks = [_shown_task(name, task, background.get(name, Background())) for name, task in results.tasks.items()]
    return template.render(
        profile=results.profile,
        tasks=tasks,
        remarks=results.judge,
        passed=sum(task.outcome == "pass" for task in tasks),
        table=with_bars(table(results)),
    )


def with_bars(drawn: Table) -> Table:
    """Return the table with a bar in each measured cell, on one track per row."""
    sections = [replace(section, rows=[_row_with_bars(row) for row in section.rows]) for section in drawn.sections]
    return replace(drawn, sections=sections)


def _row_with_bars(row: TableRow) -> TableRow:
    if row.scale.unit == " %":  # a share of all answers, so the track ends at all of them
        top = 1.0
    else:
        top = max((cell.high or cell.mean for cell in row.cells.values() if cell.mean is not None), default=0.0)
    cells = {
        column: cell if cell.mean is None else replace(cell, bar=interval_bar(cell.low, cell.mean, cell.high, top))
        for column, cell in row.cells.items()
    }
    return replace(row, cells=cells)


def _shown_task(name: str, task: TaskResults, background: Background) -> ShownTask:
    return ShownTask(
        name=name,
        title=task.title,
        headline=task.scales[task.headline].label,
        outcome=task.verdict.outcome if task.verdict else "none",
        verdict=task.verdict,
        bar=_verdict_bar(task.verdict),
        guards=[
            (shown, difference_bar(shown.check.low, shown.check.delta, shown.check.high, 0.0))
            for shown in shown_guards(name, task)
        ],
        adapter_sha256=task.adapter_sha256,
        key=task.key,
        provenance=_provenance(task),
        stages=_stages(background.reports),
        charts=_charts(background.curve),
        samples=choose_examples(name, task),
        run=run_lines(background.run),
        took=time_and_memory(background.run),
        sweep=background.sweep,
        scale=task.scales[task.headline],
    )


def _verdict_bar(verdict: Verdict | None) -> Markup:
    if verdict is None or verdict.low is None or verdict.delta is None or verdict.high is None:
        return Markup("")
    return difference_bar(verdict.low, verdict.delta, verdict.high, verdict.margin)


def _provenance(task: TaskResults) -> list[Provenance]:
    """Count the measured samples by kind of source and licence, and name where they come from."""
    found: dict[tuple[str, str], list[str]] = {}
    for sample in task.samples.values():
        kind, _, rest = sample.source.partition(":")
        package = rest.partition(":")[0]
        origin = package if "==" in package else sample.group
        found.setdefault((kind, sample.licence), []).append(origin)
    return [
        Provenance(source, licence, len(origins), _listed(sorted(set(origins))))
        for (source, licence), origins in sorted(found.items())
    ]


def _listed(names: Sequence[str], limit: int = 12) -> str:
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def _stages(reports: Mapping[str, StageReport]) -> list[ShownStage]:
    return [_stage(name, reports[name]) for name in ("data-process", "data-split") if name in reports]


def _stage(name: str, report: StageReport) -> ShownStage:
    top = max((rule.count for rule in report.rules), default=0)
    rules = [
        ShownRule(
            rule.rule, rule.count, interval_bar(0.0, rule.count, rule.count, top), [*map(_excerpt, rule.examples[:3])]
        )
        for rule in sorted(report.rules, key=lambda rule: (-rule.count, rule.rule))
    ]
    counts = report.splits if isinstance(report, SplitReport) else {}
    splits = [ShownSplit(split, found.rows, found.groups, _counted(found.licence)) for split, found in counts.items()]
    return ShownStage(name, report.rows_in, report.rows_out, rules, splits)


def _counted(counts: Mapping[str, int]) -> str:
    return _listed([f"{name} {count}" for name, count in sorted(counts.items(), key=lambda one: (-one[1], one[0]))])


def _excerpt(row: DropExample) -> str:
    return "\n".join(part for part in (row.source, row.detail, row.excerpt) if part)


def _charts(curve: Sequence[CurvePoint]) -> list[Chart]:
    names = dict.fromkeys([*CHARTS, *sorted({key for point in curve for key in point} - {"step", *CHARTS})])
    charts = []
    for name in names:
        points = [
            (float(step), float(value))
            for point in curve
            if is_number(step := point.get("step")) and is_number(value := point.get(name))
        ]
        if points:
            label = CHARTS.get(name, name)
            drawing = line_chart(points, label=_visible_text(label), dots=len(points) <= 30)
            charts.append(Chart(label, drawing, f"{points[-1][1]:.4g}"))
    return charts
