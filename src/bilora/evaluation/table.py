"""The results table of terminal and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bilora.evaluation.run import TRIVIAL_PREFIX
from bilora.evaluation.summary import ADAPTER_COLUMN, DATASET_TITLES, dataset_order
from bilora.records import GUARD_PREFIX, Dataset, Scale
from bilora.results import DatasetSummary, LatencySummary, MetricSummary, Results, TaskResults

LATENCY = Scale(label="Average latency", factor=1.0, unit=" s", digits=2)
_NO_BAR = Markup("")
_Metrics = Mapping[str, Mapping[str, MetricSummary]]
"""By system, then by metric."""


@dataclass(frozen=True)
class Cell:
    """One system's value of one metric; if nothing was measured, `mean` is None and `note` says why.

    `text` and `interval` are formatted for display, `bar` is the report's chart.
    """

    text: str
    note: str = ""
    interval: str = ""
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    unscored: int = 0
    bar: Markup = _NO_BAR


@dataclass(frozen=True)
class TrivialScore:
    """The mean score of a trivial answer, as a number and formatted."""

    name: str
    text: str
    mean: float


@dataclass(frozen=True)
class TableRow:
    """One metric of one task, or of one of its tiers; `task` is empty for latency, which is pooled over tasks."""

    label: str
    scale: Scale
    cells: Mapping[str, Cell]
    task: str = ""
    metric: str = "latency_s"
    tier: str = ""
    trivial_scores: Sequence[TrivialScore] = ()

    @property
    def trivial_remark(self) -> str:
        """A sentence on the trivial answers that the adapter does not clearly beat; empty if there is none."""
        cell = self.cells.get(ADAPTER_COLUMN)
        if cell is None or cell.low is None or cell.high is None:
            return ""
        inside = [
            f"{score.name} ({score.text})" for score in self.trivial_scores if cell.low <= score.mean <= cell.high
        ]
        above = [f"{score.name} ({score.text})" for score in self.trivial_scores if score.mean > cell.high]
        clauses = [
            f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} {position} the adapter's interval"
            for names, position in ((inside, "inside"), (above, "above"))
            if names
        ]
        return f"Not shown to be better than a trivial answer: {'; '.join(clauses)}." if clauses else ""

    @property
    def note(self) -> str:
        """Why nothing was measured, if all columns have the same reason."""
        notes = {cell.note for cell in self.cells.values()}
        measured = any(cell.mean is not None for cell in self.cells.values())
        return notes.pop() if len(notes) == 1 and not measured else ""


@dataclass(frozen=True)
class Section:
    """The metrics on one dataset."""

    dataset: Dataset
    title: str
    rows: Sequence[TableRow]


@dataclass(frozen=True)
class Table:
    """All metrics by dataset, one column per system, and remarks on systems."""

    columns: Sequence[str]
    sections: Sequence[Section]
    notes: Mapping[str, str]


def build_table(results: Results) -> Table:
    """Return the table of a benchmark run; what was not run is never shown as 0."""
    columns = _columns(results)
    sections = []
    for dataset in dataset_order(name for task in results.tasks.values() for name in task.summary):
        rows = [
            row
            for name, task in results.tasks.items()
            for row in _TaskRows(name, task, dataset, columns, results.notes).rows()
        ]
        latency = results.latency_s[dataset]
        cells = {column: _latency_cell(latency.get(column), _absence(column, results.notes)) for column in columns}
        rows.append(TableRow(LATENCY.label, LATENCY, cells))
        sections.append(Section(dataset, _title(dataset, results), rows))
    return Table(columns, sections, results.notes)


def _title(dataset: Dataset, results: Results) -> str:
    if dataset in DATASET_TITLES:
        return DATASET_TITLES[dataset]
    name = dataset.removeprefix(GUARD_PREFIX)
    titles = (task.guards[name].title for task in results.tasks.values() if name in task.guards)
    return f"Public guard: {next(titles, name)}"


def _columns(results: Results) -> list[str]:
    others = set(results.notes)
    for name, task in results.tasks.items():
        for summary in task.summary.values():
            others.update(summary.systems.keys() - {name})
    others -= {"base", ADAPTER_COLUMN, *results.tasks}
    return ["base", ADAPTER_COLUMN, *sorted(system for system in others if not system.startswith(TRIVIAL_PREFIX))]


@dataclass(frozen=True)
class _TaskRows:
    """Builds one task's rows of one dataset's section."""

    name: str
    task: TaskResults
    dataset: Dataset
    columns: Sequence[str]
    notes: Mapping[str, str]

    def rows(self) -> list[TableRow]:
        """Return the rows of the metrics that were run on this dataset, the headline's also by tier.

        The row of a metric that was not run is in the test split's section.
        """
        summary = self.task.summary.get(self.dataset, DatasetSummary())
        systems = {name: system.metrics for name, system in summary.systems.items()}
        rows = []
        for metric in self.task.metrics:
            if self.dataset not in (_datasets_of(self.task, metric) or ["test"]):
                continue
            rows.append(self._row(metric, systems, trivial_scores=self._trivial_scores(metric, systems)))
            for tier in summary.tiers if metric == self.task.headline else ():
                rows.append(self._row(metric, tier.systems, tier=tier.tier))
        return rows

    def _row(
        self, metric: str, systems: _Metrics, *, tier: str = "", trivial_scores: Sequence[TrivialScore] = ()
    ) -> TableRow:
        scale = self.task.scales[metric]
        cells = {column: self._cell(column, metric, systems) for column in self.columns}
        return TableRow(f"{self.task.title} · {scale.label}", scale, cells, self.name, metric, tier, trivial_scores)

    def _trivial_scores(self, metric: str, systems: _Metrics) -> list[TrivialScore]:
        return [
            TrivialScore(system.removeprefix(TRIVIAL_PREFIX), self.task.scales[metric].text(mean), mean)
            for system, metrics in systems.items()
            if system.startswith(TRIVIAL_PREFIX) and metric in metrics and (mean := metrics[metric].mean) is not None
        ]

    def _cell(self, column: str, metric: str, systems: _Metrics) -> Cell:
        system = self.name if column == ADAPTER_COLUMN else column
        if system in systems:
            summary, absence = systems[system].get(metric), "answered, but was not scored by this metric"
        else:
            summary, absence = None, _absence(system, self.notes)
        return _metric_cell(self.task.scales[metric], summary, self.task.not_run.get(metric) or absence)


def _datasets_of(task: TaskResults, metric: str) -> list[Dataset]:
    """Return the datasets on which a metric was run."""
    return [
        dataset
        for dataset, summary in task.summary.items()
        if any(metric in system.metrics for system in summary.systems.values())
    ]


def _absence(system: str, notes: Mapping[str, str]) -> str:
    return notes.get(system) or "not part of this run"


def _metric_cell(scale: Scale, summary: MetricSummary | None, absence: str) -> Cell:
    if summary is None:
        return Cell("not run", absence)
    if summary.mean is None:
        reasons = "; ".join(f"{reason} ({count})" for reason, count in summary.reasons.items())
        return Cell("unscored", reasons, unscored=summary.unscored)
    note = f"{summary.unscored} unscored" if summary.unscored else ""
    return _measured_cell(scale, summary, summary.mean, note, summary.unscored)


def _latency_cell(summary: LatencySummary | None, absence: str) -> Cell:
    """Return a mean latency with median, 95th percentile and speed."""
    if summary is None:
        return Cell("not run", absence)
    speed = "" if summary.tokens_per_s is None else f", {summary.tokens_per_s:.0f} tokens/s"
    if summary.first_token_s is not None:
        speed += f", first token {summary.first_token_s:.2f} s"
    note = f"median {LATENCY.text(summary.median)}, p95 {LATENCY.text(summary.p95)}{speed}"
    return _measured_cell(LATENCY, summary, summary.mean, note)


def _measured_cell(
    scale: Scale, summary: MetricSummary | LatencySummary, mean: float, note: str, unscored: int = 0
) -> Cell:
    interval = ""
    if summary.low is not None and summary.high is not None:
        interval = f"{scale.number(summary.low)} to {scale.number(summary.high)}"
    return Cell(scale.text(mean), note, interval, mean, summary.low, summary.high, summary.n, unscored)
