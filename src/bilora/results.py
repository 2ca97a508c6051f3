"""Read and write benchmarking/results.json and benchmarking/baseline.json."""

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
"""Contains the same entries; `bilora baseline upgrade` rewrites it."""

CheckOutcome = Literal["pass", "regressed", "inconclusive"]
VerdictOutcome = Literal["pass", "regressed", "inconclusive", "incomparable"]
IncumbentRole = Literal["current", "champion"]
Scores = dict[str, Annotated[float, Field(strict=True, ge=0.0, le=1.0, allow_inf_nan=False)] | None]
"""One metric's score by sample id; None if unscored."""


def _is_empty(value: Sized) -> bool:
    """Return whether a field is omitted from the file: files without guards keep their format from before guards."""
    return not value


class Check(Record):
    """One comparison of the gate: a metric's paired difference to `against`, and its outcome.

    Against the base the headline's difference must be above 0; against the promoted adapters (`baseline`,
    `champion`) every metric's difference must be above -`margin`.
    """

    against: Literal["base", "baseline", "champion"]
    metric: str
    low: float
    delta: float
    high: float
    margin: float
    outcome: CheckOutcome


class GuardCheck(Record):
    """Adapter and base on a guard: their means over the `n` samples with both scores, and the paired difference.

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
    """Description of a guard: `prompt` is the chat of its first sample, `decoding` overrides the task's settings."""

    title: str
    prompt: tuple[Message, ...]
    decoding: dict[str, float]


class Verdict(Record):
    """The gate's decision on one task's adapter, bound to its bytes.

    `low` to `margin` are those of the deciding check; if a guard decided, those of the headline's check.
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
    """Mean of one metric over `n` scored samples with its 95 % interval; `reasons` counts why samples are unscored."""

    n: int
    unscored: int
    reasons: dict[str, int] = Field(default_factory=dict)
    mean: float | None
    low: float | None
    high: float | None


class LatencySummary(Record):
    """Seconds per completion, without failed requests; `first_token_s` is a median."""

    n: int
    mean: float
    low: float | None
    high: float | None
    median: float
    p95: float
    first_token_s: float | None
    tokens_per_s: float | None


class SystemSummary(Record):
    """One system's completions on one dataset; `cut` counts those that reached the token limit.

    `output_tokens` is the sum over all completions; None if a server did not count.
    """

    n: int
    errors: int
    cut: int
    metrics: dict[str, MetricSummary]
    latency_s: LatencySummary | None
    output_tokens: int | None = None


class TierSummary(Record):
    """The headline on one difficulty class, by system and metric."""

    tier: str
    systems: dict[str, dict[str, MetricSummary]]


class DatasetSummary(Record):
    """One dataset's summary by system, and its headline by tier."""

    systems: dict[str, SystemSummary] = Field(default_factory=dict)
    tiers: tuple[TierSummary, ...] = ()


class AnswerScore(Record):
    """One metric's score of one answer; see `records.Score`."""

    value: float | None
    reason: str
    evidence: dict[str, str]


class AnswerRow(Completion):
    """A completion with its dataset, the extracted answer, and its scores by metric."""

    dataset: Dataset
    answer: str
    scores: dict[str, AnswerScore]


class BaselineEntry(Record):
    """The scores that later adapters of a task are compared with: every metric on the test split.

    `key` is the comparability key of the run, `metric` the headline, `guards` the headline's scores on each guard.
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
        """Return the headline's mean; None if nothing was scored."""
        values = self.scored_values()
        return sum(values) / len(values) if values else None


class TaskResults(Record):
    """One task of a benchmark run.

    `metrics` are all metrics in display order, `scales` their display scales; `not_run` gives the reason why a
    metric was not run.
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
        """Each system's summary of the test split."""
        return self.summary["test"].systems if "test" in self.summary else {}


class Results(Record):
    """One benchmark run.

    `harness` changes when equal answers would score differently; `notes` are remarks by system, `judge` remarks
    on the judge; `latency_s` is each column's latency over all tasks, by dataset.
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
                system: {metric: values.mean for metric, values in summary.metrics.items()}
                for system, summary in task.test_systems.items()
            }
            for name, task in self.tasks.items()
        }


class Incumbents(Record):
    """A task's last promoted adapter, and the best one ever promoted under the same conditions."""

    current: BaselineEntry
    champion: BaselineEntry

    def entries(self) -> dict[IncumbentRole, BaselineEntry]:
        """Return both entries by their key in the file."""
        return {"current": self.current, "champion": self.champion}


class Baseline(Record):
    """The promoted adapters that later ones are measured against, by task."""

    version: Literal[3] = Field(default=BASELINE_SCHEMA, alias="schema")
    tasks: dict[str, Incumbents] = Field(default_factory=dict)


def read_results(path: Path) -> Results:
    """Read results.json.

    Raises:
        BadData: the file is absent, not a results.json, or of another schema.
    """
    document = read_json(path)
    if not isinstance(document, dict) or not isinstance(document.get("tasks"), dict) or "profile" not in document:
        raise BadData(path, "is not a results.json of `bilora benchmark`.")
    if (schema := document.get("schema")) != RESULTS_SCHEMA:
        raise BadData(path, f"is of schema {schema}, not {RESULTS_SCHEMA}; run `dvc repro -f benchmark`.")
    try:
        return Results.model_validate(document)
    except ValidationError as error:
        raise BadData(path, f"is damaged ({first_fault(error)}); run `dvc repro -f benchmark`.") from None


def write_results(path: Path, results: Results) -> None:
    """Write results.json; equal results produce equal bytes."""
    write_json(path, results.model_dump(mode="json", by_alias=True))


def read_baseline(path: Path, *, accept_previous: bool = False) -> Baseline:
    """Read baseline.json; without the file, return a baseline without tasks.

    Args:
        accept_previous: also read the previous schema, which contains the same entries.

    Raises:
        BadData: the file is of another schema, or damaged.
    """
    if not path.exists():
        return Baseline()
    document = read_json(path)
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema == PREVIOUS_BASELINE_SCHEMA and not accept_previous:
        raise BadData(
            path,
            f"is of schema {schema}, not {BASELINE_SCHEMA}; run `bilora baseline upgrade`, which keeps every score.",
        )
    if schema not in (BASELINE_SCHEMA, PREVIOUS_BASELINE_SCHEMA):
        raise BadData(path, f"is not a baseline of schema {BASELINE_SCHEMA}; restore it from version control.")
    try:
        return Baseline.model_validate({"schema": BASELINE_SCHEMA, "tasks": document.get("tasks")})
    except ValidationError as error:
        raise BadData(path, f"is damaged ({first_fault(error)}); restore it from version control.") from None


def baseline_text(baseline: Baseline) -> str:
    """Return the text of baseline.json; equal baselines produce equal text."""
    return dump_json(baseline.model_dump(mode="json", by_alias=True), indent=2) + "\n"


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write baseline.json."""
    write_text(path, baseline_text(baseline))
