"""The one table that terminal and report both show."""

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
    """One system's value of one measure; `mean` is None where nothing was measured, and `note` then says why.

    `text` and `interval` are written for people, `bar` is drawn for the report.
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
    """What a trivial answer scores: its mean, and that written for people."""

    name: str
    text: str
    mean: float


@dataclass(frozen=True)
class TableRow:
    """One measure of one task, or of one of its tiers; `task` is empty for latency, which is pooled."""

    label: str
    scale: Scale
    cells: Mapping[str, Cell]
    task: str = ""
    metric: str = "latency_s"
    tier: str = ""
    trivial_scores: Sequence[TrivialScore] = ()

    @property
    def trivial_remark(self) -> str:
        """Say which trivial answers the adapter is not shown to beat; empty if it beats all, or has no interval."""
        found = self.cells.get(ADAPTER_COLUMN)
        if found is None or found.low is None or found.high is None:
            return ""
        inside = [f"{one.name} ({one.text})" for one in self.trivial_scores if found.low <= one.mean <= found.high]
        above = [f"{one.name} ({one.text})" for one in self.trivial_scores if one.mean > found.high]
        parts = [
            f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} {place} the adapter's interval"
            for names, place in ((inside, "inside"), (above, "above"))
            if names
        ]
        return f"Not shown to be better than a trivial answer: {'; '.join(parts)}." if parts else ""

    @property
    def note(self) -> str:
        """Why nothing was measured, if that has one reason for all columns."""
        notes = {cell.note for cell in self.cells.values()}
        measured = any(cell.mean is not None for cell in self.cells.values())
        return notes.pop() if len(notes) == 1 and not measured else ""


@dataclass(frozen=True)
class Section:
    """The measures on one dataset."""

    dataset: Dataset
    title: str
    rows: Sequence[TableRow]


@dataclass(frozen=True)
class Table:
    """All measures by dataset, one column per system, and remarks on systems."""

    columns: Sequence[str]
    sections: Sequence[Section]
    notes: Mapping[str, str]


def build_table(results: Results) -> Table:
    """Lay results out, ready to print or draw; what was not run is never shown as 0."""
    columns = _columns(results)
    sections = []
    for dataset in dataset_order(name for task in results.tasks.values() for name in task.summary):
        rows = [
            row
            for name, task in results.tasks.items()
            for row in _TaskRows(name, task, dataset, columns, results.notes).rows()
        ]
        latency = results.latency_s[dataset]
        cells = {column: _latency_cell(latency.get(column), _why(column, results.notes)) for column in columns}
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
    """Makes one task's rows of one dataset's section."""

    name: str
    task: TaskResults
    dataset: Dataset
    columns: Sequence[str]
    notes: Mapping[str, str]

    def rows(self) -> list[TableRow]:
        """Return the rows of the metrics that were run on this dataset, the headline's also by tier.

        A metric that was run nowhere has its row in the test split's section.
        """
        summary = self.task.summary.get(self.dataset, DatasetSummary())
        systems = {system: found.metrics for system, found in summary.systems.items()}
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
            for system, found in systems.items()
            if system.startswith(TRIVIAL_PREFIX) and metric in found and (mean := found[metric].mean) is not None
        ]

    def _cell(self, column: str, metric: str, systems: _Metrics) -> Cell:
        system = self.name if column == ADAPTER_COLUMN else column
        if system in systems:
            found, why = systems[system].get(metric), "answered, but was not scored by this metric"
        else:
            found, why = None, _why(system, self.notes)
        return _cell(self.task.scales[metric], found, self.task.not_run.get(metric) or why)


def _datasets_of(task: TaskResults, metric: str) -> list[Dataset]:
    """Return the datasets on which a metric was run."""
    return [
        dataset
        for dataset, summary in task.summary.items()
        if any(metric in found.metrics for found in summary.systems.values())
    ]


def _why(system: str, notes: Mapping[str, str]) -> str:
    return notes.get(system) or "not part of this run"


def _cell(scale: Scale, found: MetricSummary | None, reason: str) -> Cell:
    if found is None:
        return Cell("not run", reason)
    if found.mean is None:
        reasons = "; ".join(f"{why} ({count})" for why, count in found.reasons.items())
        return Cell("unscored", reasons, unscored=found.unscored)
    return _measured(scale, found, found.mean, f"{found.unscored} unscored" if found.unscored else "", found.unscored)


def _latency_cell(found: LatencySummary | None, reason: str) -> Cell:
    """Show a mean latency with what it hides: median, 95th percentile, speed."""
    if found is None:
        return Cell("not run", reason)
    speed = "" if found.tokens_per_s is None else f", {found.tokens_per_s:.0f} tokens/s"
    if found.first_token_s is not None:
        speed += f", first token {found.first_token_s:.2f} s"
    note = f"median {LATENCY.text(found.median)}, p95 {LATENCY.text(found.p95)}{speed}"
    return _measured(LATENCY, found, found.mean, note)


def _measured(scale: Scale, found: MetricSummary | LatencySummary, mean: float, note: str, unscored: int = 0) -> Cell:
    interval = ""
    if found.low is not None and found.high is not None:
        interval = f"{scale.number(found.low)} to {scale.number(found.high)}"
    return Cell(scale.text(mean), note, interval, mean, found.low, found.high, found.n, unscored)
