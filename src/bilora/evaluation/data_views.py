"""What the report says of the data: where measured samples come from, and what the data stages kept and refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bilora.data_reports import DropExample, SplitReport, StageReport
from bilora.evaluation.charts import interval_bar
from bilora.results import TaskResults


@dataclass(frozen=True)
class Provenance:
    """Measured samples of one kind of source and licence."""

    source: str
    licence: str
    n: int
    origins: str


@dataclass(frozen=True)
class RuleView:
    """A rule of a data stage with the number of rows that it refused."""

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
    """What a data stage read, kept and refused."""

    name: str
    read: int
    kept: int
    rules: Sequence[RuleView]
    splits: Sequence[SplitView]


def provenance(task: TaskResults) -> list[Provenance]:
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


def stage_views(reports: Mapping[str, StageReport]) -> list[StageView]:
    """Return what the data stages did, in their order; a report may lack."""
    return [_stage(name, reports[name]) for name in ("data-process", "data-split") if name in reports]


def _stage(name: str, report: StageReport) -> StageView:
    top = max((rule.count for rule in report.rules), default=0)
    rules = [
        RuleView(
            rule.rule, rule.count, interval_bar(0.0, rule.count, rule.count, top), [*map(_excerpt, rule.examples[:3])]
        )
        for rule in sorted(report.rules, key=lambda rule: (-rule.count, rule.rule))
    ]
    counts = report.splits if isinstance(report, SplitReport) else {}
    splits = [SplitView(split, found.rows, found.groups, _counted(found.licence)) for split, found in counts.items()]
    return StageView(name, report.rows_in, report.rows_out, rules, splits)


def _counted(counts: Mapping[str, int]) -> str:
    return _listed([f"{name} {count}" for name, count in sorted(counts.items(), key=lambda one: (-one[1], one[0]))])


def _excerpt(row: DropExample) -> str:
    return "\n".join(part for part in (row.source, row.detail, row.excerpt) if part)
