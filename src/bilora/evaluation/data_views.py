"""The report's sections on data: the origin of the measured samples, and the rows that each data stage dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bilora.data_reports import DropExample, SplitReport, StageReport
from bilora.evaluation.charts import interval_bar
from bilora.results import TaskResults


@dataclass(frozen=True)
class Provenance:
    """The number and origins of the measured samples with one kind of source and one licence."""

    source: str
    licence: str
    n: int
    origins: str


@dataclass(frozen=True)
class RuleView:
    """A rule of a data stage and the number of rows that it refused."""

    rule: str
    count: int
    bar: Markup
    examples: Sequence[str]


@dataclass(frozen=True)
class SplitView:
    """A split's size and licences."""

    name: str
    rows: int
    groups: int
    licences: str


@dataclass(frozen=True)
class StageView:
    """The rows that a data stage read, kept and refused."""

    name: str
    rows_in: int
    rows_out: int
    rules: Sequence[RuleView]
    splits: Sequence[SplitView]


def provenance(task: TaskResults) -> list[Provenance]:
    """Return the measured samples' numbers and origins by kind of source and licence."""
    by_source: dict[tuple[str, str], list[str]] = {}
    for sample in task.samples.values():
        kind, _, detail = sample.source.partition(":")
        package = detail.partition(":")[0]
        origin = package if "==" in package else sample.group
        by_source.setdefault((kind, sample.licence), []).append(origin)
    return [
        Provenance(source, licence, len(origins), _join(sorted(set(origins))))
        for (source, licence), origins in sorted(by_source.items())
    ]


def _join(names: Sequence[str], limit: int = 12) -> str:
    omitted = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {omitted} more" if omitted > 0 else "")


def stage_views(reports: Mapping[str, StageReport]) -> list[StageView]:
    """Return the sections of the data stages that have a report, in pipeline order."""
    return [_stage_view(name, reports[name]) for name in ("data-process", "data-split") if name in reports]


def _stage_view(name: str, report: StageReport) -> StageView:
    top = max((rule.count for rule in report.rules), default=0)
    rules = [
        RuleView(
            rule.rule, rule.count, interval_bar(0.0, rule.count, rule.count, top), [*map(_excerpt, rule.examples[:3])]
        )
        for rule in sorted(report.rules, key=lambda rule: (-rule.count, rule.rule))
    ]
    counts = report.splits if isinstance(report, SplitReport) else {}
    splits = [SplitView(name, split.rows, split.groups, _count_list(split.licence)) for name, split in counts.items()]
    return StageView(name, report.rows_in, report.rows_out, rules, splits)


def _count_list(counts: Mapping[str, int]) -> str:
    return _join([f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))])


def _excerpt(row: DropExample) -> str:
    return "\n".join(part for part in (row.source, row.detail, row.excerpt) if part)
