"""benchmarking/results.json and benchmarking/baseline.json as records, each with one reader and one writer."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from bilora.errors import BadData
from bilora.records import Completion, Dataset, Message, Record, Sample, Scale
from bilora.storage import dump_json, first_fault, read_json, write_json, write_text

RESULTS_SCHEMA: Final = 2
BASELINE_SCHEMA: Final = 3
PREVIOUS_BASELINE_SCHEMA = 2
"""Holds the same entries; `bilora baseline upgrade` rewrites it."""

CheckOutcome = Literal["pass", "regressed", "inconclusive"]
VerdictOutcome = Literal["pass", "regressed", "inconclusive", "incomparable"]
IncumbentRole = Literal["current", "champion"]
Scores = dict[str, Annotated[float, Field(strict=True, ge=0.0, le=1.0, allow_inf_nan=False)] | None]
"""One metric's score by sample id; None where it is unscored."""


def _is_empty(value: Sized) -> bool:
    """Whether a field is left out of the file: without guards it is as it was before there were any."""
    return not value


class Check(Record):
    """One comparison of the gate: a metric's paired difference to `against`, and what follows from it.

    To the base the headline must be above 0; to the promoted adapters (`baseline`, `champion`) every
    metric must be above -`margin`.
    """

    against: Literal["base", "baseline", "champion"]
    metric: str
    low: float
    delta: float
    high: float
    margin: float
    outcome: CheckOutcome


class GuardCheck(Record):
    """Adapter and base on a guard: their means over `n` questions that both scored, and the paired difference.

    The guard is `tripped` if the whole 95 % interval of the difference is below 0.
    """

    guard: str
    metric: str
    n: int
    unscored: int
    base: float
    adapter: float
    low: float
    delta: float
    high: float
    tripped: bool


class GuardFacts(Record):
    """What a guard is: `prompt` is the chat of its first question, `decoding` what replaces the task's settings."""

    title: str
    prompt: tuple[Message, ...]
    decoding: dict[str, float]


class Verdict(Record):
    """The gate's decision on one task's adapter, bound to its bytes.

    `low` to `margin` are those of the check that decided, or of the headline's where a guard decided.
    """

    task: str
    metric: str
    against: str
    n: int
    unscored: int
    low: float | None
    delta: float | None
    high: float | None
    margin: float
    outcome: VerdictOutcome
    reason: str
    adapter_sha256: str
    checks: tuple[Check, ...] = ()
    guards: Annotated[tuple[GuardCheck, ...], Field(exclude_if=_is_empty)] = ()


class MetricSummary(Record):
    """Mean of one metric over `n` scored samples, with its 95 % interval; why the others are unscored, counted."""

    n: int
    unscored: int
    reasons: dict[str, int] = Field(default_factory=dict)
    mean: float | None
    low: float | None
    high: float | None


class LatencySummary(Record):
    """Seconds per answer, of answers that came; `first_token_s` is a median."""

    n: int
    mean: float
    low: float | None
    high: float | None
    median: float
    p95: float
    first_token_s: float | None
    tokens_per_s: float | None


class SystemSummary(Record):
    """One system's answers to one dataset; `cut` counts those that reached the token limit.

    `output_tokens` are those of all answers; None where a server did not count.
    """

    n: int
    errors: int
    cut: int
    metrics: dict[str, MetricSummary]
    latency_s: LatencySummary | None
    output_tokens: int | None = None


class TierSummary(Record):
    """The headline on one difficulty class: by system, then by metric."""

    tier: str
    systems: dict[str, dict[str, MetricSummary]]


class DatasetSummary(Record):
    """One dataset by system, and its headline by tier."""

    systems: dict[str, SystemSummary] = Field(default_factory=dict)
    tiers: tuple[TierSummary, ...] = ()


class AnswerScore(Record):
    """What one metric made of one answer; see `records.Score`."""

    value: float | None
    reason: str
    evidence: dict[str, str]


class AnswerRow(Completion):
    """A completion with its dataset, the answer read from it, and its scores by metric."""

    dataset: Dataset
    answer: str
    scores: dict[str, AnswerScore]


class BaselineEntry(Record):
    """What later adapters of a task are compared with: every metric's scores on the test split.

    `key` is the comparability key of the run, `metric` the headline, `guards` its scores on each guard.
    """

    adapter_sha256: str
    key: str
    metric: str
    scores: dict[str, Scores]
    guards: Annotated[dict[str, Scores], Field(exclude_if=_is_empty)] = Field(default_factory=dict)

    def scored_values(self) -> list[float]:
        """Return the headline's scores without the unscored samples."""
        return [value for value in self.scores.get(self.metric, {}).values() if value is not None]

    def mean(self) -> float | None:
        """Return the headline's mean; None where nothing was scored."""
        values = self.scored_values()
        return sum(values) / len(values) if values else None


class TaskResults(Record):
    """One task of a benchmark run.

    `metrics` are all metrics in the order in which they are shown, `scales` how each is written; `not_run` gives the
    reason of those that were not run.
    """

    title: str
    headline: str
    metrics: tuple[str, ...]
    scales: dict[str, Scale]
    not_run: dict[str, str]
    key: str
    adapter_sha256: str
    verdict: Verdict | None
    entry: BaselineEntry
    summary: dict[Dataset, DatasetSummary]
    samples: dict[str, Sample]
    rows: tuple[AnswerRow, ...]
    guards: Annotated[dict[str, GuardFacts], Field(exclude_if=_is_empty)] = Field(default_factory=dict)

    @property
    def test_systems(self) -> Mapping[str, SystemSummary]:
        """Each system's summary of the held-out test split."""
        return self.summary["test"].systems if "test" in self.summary else {}


class Results(Record):
    """One benchmark run.

    `harness` changes when equal answers would score differently, `notes` are remarks by system, `judge` remarks
    on the judge, `latency_s` each column's latency over all tasks, by dataset.
    """

    version: Literal[2] = Field(default=RESULTS_SCHEMA, alias="schema")
    profile: str
    harness: str
    seed: int
    notes: dict[str, str]
    judge: tuple[str, ...]
    latency_s: dict[Dataset, dict[str, LatencySummary | None]]
    tasks: dict[str, TaskResults]

    def means(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """Return the mean on the test split by task, system and metric."""
        return {
            name: {
                system: {metric: found.mean for metric, found in summary.metrics.items()}
                for system, summary in task.test_systems.items()
            }
            for name, task in self.tasks.items()
        }


class Incumbents(Record):
    """Two entries per task: the adapter promoted last, and the best ever promoted under the same conditions."""

    current: BaselineEntry
    champion: BaselineEntry

    def entries(self) -> dict[IncumbentRole, BaselineEntry]:
        """Return both by their name in the file."""
        return {"current": self.current, "champion": self.champion}


class Baseline(Record):
    """The promoted adapters that later ones are measured against, by task."""

    version: Literal[3] = Field(default=BASELINE_SCHEMA, alias="schema")
    tasks: dict[str, Incumbents] = Field(default_factory=dict)


def read_results(path: Path) -> Results:
    """Read results.json.

    Raises:
        BadData: it is absent, something else, or of another schema.
    """
    document = read_json(path)
    if not isinstance(document, dict) or not isinstance(document.get("tasks"), dict) or "profile" not in document:
        raise BadData(path, "is no results.json of `bilora benchmark`.")
    if (schema := document.get("schema")) != RESULTS_SCHEMA:
        raise BadData(path, f"is of schema {schema}, not {RESULTS_SCHEMA}; run `dvc repro -f benchmark`.")
    try:
        return Results.model_validate(document)
    except ValidationError as error:
        raise BadData(path, f"is damaged ({first_fault(error)}); run `dvc repro -f benchmark`.") from None


def write_results(path: Path, results: Results) -> None:
    """Write results.json; equal results give equal bytes."""
    write_json(path, results.model_dump(mode="json", by_alias=True))


def read_baseline(path: Path, *, accept_previous: bool = False) -> Baseline:
    """Read baseline.json; an absent file has no tasks.

    Args:
        accept_previous: read also the schema before this one, which holds the same entries.

    Raises:
        BadData: the file is of another schema, or damaged.
    """
    if not path.exists():
        return Baseline()
    document = read_json(path)
    found = document.get("schema") if isinstance(document, dict) else None
    if found == PREVIOUS_BASELINE_SCHEMA and not accept_previous:
        raise BadData(
            path,
            f"is of schema {found}, not {BASELINE_SCHEMA}; run `bilora baseline upgrade`, which keeps every score.",
        )
    if found not in (BASELINE_SCHEMA, PREVIOUS_BASELINE_SCHEMA):
        raise BadData(path, f"is no baseline of schema {BASELINE_SCHEMA}; restore it from version control.")
    try:
        return Baseline.model_validate({"schema": BASELINE_SCHEMA, "tasks": document.get("tasks")})
    except ValidationError as error:
        raise BadData(path, f"is damaged ({first_fault(error)}); restore it from version control.") from None


def baseline_text(baseline: Baseline) -> str:
    """Return the text of baseline.json; equal baselines give equal text."""
    return dump_json(baseline.model_dump(mode="json", by_alias=True), indent=2) + "\n"


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write baseline.json."""
    write_text(path, baseline_text(baseline))
