"""The domain types: immutable records that refuse unknown fields. Only they are written to files or sent."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "validation", "test", "prompt"]
"""`prompt` rows are the source's few-shot examples: data-process writes them, and no split contains them."""
Row = Mapping[str, object]
"""A raw row of a source; `Task.sample` interprets it."""

EventId = Annotated[str, Field(pattern=r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
"""A ULID (github.com/ulid/spec): sorts by its creation time in milliseconds."""


class Record(BaseModel):
    """Base class of all domain types: immutable; unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(Record):
    """One turn of a chat."""

    role: Role
    content: str


class Sample(Record):
    """One question with its reference answer.

    `target` is the reference alone (code, docstring). `tests` are assert statements, run after
    `target` and then `setup`; the first may be visible in `prompt`. The split never divides a `group`
    (repository, package, composition). `tier` names a difficulty class for reporting, or is empty.
    `split` is set if the source has an official one.
    """

    id: str
    task: str
    prompt: str
    target: str
    tests: tuple[str, ...] = ()
    setup: str = ""
    source: str
    group: str
    licence: str
    tier: str = ""
    split: Split | None = None

    @classmethod
    def create(cls, *, task: str, prompt: str, target: str, **fields: Any) -> Self:
        """Return a sample whose id is the hash of its task, prompt and target."""
        digest = hashlib.sha256("\x00".join((task, prompt, target)).encode()).hexdigest()[:16]
        return cls(id=digest, task=task, prompt=prompt, target=target, **fields)


class Drop(Record):
    """The rule that refused a row, and an excerpt of the row."""

    rule: str
    detail: str = ""


class Completion(Record):
    """One completion of one system. Times in seconds, counts in tokens. `reason` says why it is missing.

    The counts are None if the server reports none. `remark` names the parameters that were omitted or
    replaced because the server refuses them: such a completion may not be greedy.
    `first_token_s` is the time from the request to the first token, in a benchmark's batch from the prefill; None
    if it was not measured.
    """

    sample_id: str
    system: str
    text: str
    prompt_tokens: int | None
    output_tokens: int | None
    latency_s: float
    finish: Literal["stop", "length", "error"]
    reason: str = ""
    remark: str = ""
    first_token_s: float | None = None


class Score(Record):
    """One metric's score of one completion.

    `value` is in [0, 1], higher is better. None means *unscored*: the judge or the sandbox
    failed, not the model. An unscored completion never counts as 0.
    """

    sample_id: str
    system: str
    metric: str
    value: float | None = Field(ge=0.0, le=1.0)
    reason: str = ""
    evidence: dict[str, str] = Field(default_factory=dict)


Dataset = Annotated[str, Field(pattern=r"^(test|curated|hidden|sampled|guard:[a-z0-9_]+)$")]
"""The test split, the curated samples, the test split without visible tests, several completions per sample, a guard.

A guard's dataset is `GUARD_PREFIX` and the guard's name.
"""
GUARD_PREFIX = "guard:"


def guard_dataset(name: str) -> Dataset:
    """Return the dataset of a guard's rows."""
    return GUARD_PREFIX + name


class Scale(Record):
    """How a metric's values are displayed: `value * factor + offset` with `digits` decimals, then `unit`.

    `meaning` is a sentence that explains the number.
    """

    label: str
    factor: float = 100.0
    offset: float = 0.0
    unit: str = ""
    digits: int = 1
    meaning: str = ""

    def number(self, value: float) -> str:
        """Return a value without its unit."""
        return f"{value * self.factor + self.offset:.{self.digits}f}"

    def text(self, value: float) -> str:
        """Return a value with its unit."""
        return self.number(value) + self.unit

    def difference(self, value: float) -> str:
        """Return a difference of two values in points, signed."""
        return f"{value * self.factor:+.{self.digits}f}"


class EvalRow(Record):
    """One row of an evaluation: a sample, one system's completion, the extracted answer, and its scores.

    `adapter_sha256` is the adapter that this evaluation measured; the rows of all systems have it.
    """

    task: str
    adapter_sha256: str
    dataset: Dataset
    sample: Sample
    completion: Completion
    answer: str
    scores: tuple[Score, ...]


class Interval(Record):
    """An estimate with its 95 % interval."""

    low: float
    mean: float
    high: float


class JudgeCheck(Record):
    """Result of testing a judge with answers whose quality is known; in points of its scale from 1 to 5.

    `gap`: by how much it rates a right answer above a wrong one. `uplift`: what a plea for five points
    gains. `flips`: the share of samples in which another order changes the winner. None if nothing was scored.
    `unreachable`: the endpoint answered no request, so the judge remains untested. `remark` names the
    parameters that the judge's server refuses.
    """

    model: str
    scored: int
    unscored: int
    gap: float | None
    uplift: float | None
    flips: float | None
    faults: tuple[str, ...]
    unreachable: bool = False
    remark: str = ""

    def sentence(self) -> str:
        """Return the result in one sentence."""
        if self.gap is None or self.uplift is None or self.flips is None:
            numbers = "nothing was scored"
        else:
            numbers = f"gap {self.gap:.2f} points, plea {self.uplift:+.2f}, order flips {self.flips:.0%}"
        verdict = "; ".join(self.faults) or "sound"
        if self.remark:
            verdict += f"; requests were sent {self.remark}"
        return f"{self.model}, {self.scored} samples scored, {self.unscored} not: {numbers}; {verdict}."


class RunRecord(Record):
    """Everything that produced an adapter: enough to reproduce it, or to see why another run differs.

    `mode` is the device and the base's precision, `ratings` are the events whose rows its training read. `planned_s`
    and `planned_memory_bytes` are the plan's estimates. All four are None in older records.
    """

    id: str
    task: str
    created_utc: str
    commit: str
    dirty_diff_sha256: str
    params: dict[str, Any]
    params_sha256: str
    data_sha256: str
    lock_sha256: str
    base_id: str
    base_revision: str
    adapter_sha256: str
    seed: int
    hardware: dict[str, str]
    versions: dict[str, str]
    duration_s: float
    tokens: int
    tokens_per_s: float
    peak_memory_bytes: int
    metrics: dict[str, float]
    ratings: tuple[EventId, ...] | None = None
    resumed: int = 0
    mode: str | None = None
    planned_s: float | None = None
    planned_memory_bytes: int | None = None


class Program(Record):
    """Model-written code and its tests; they run in the order code, setup, tests."""

    code: str
    setup: str = ""
    tests: tuple[str, ...] = ()


class Outcome(Record):
    """The sandbox's result for one program.

    `results` has one entry per test: passed, failed, or None if it was not reached. `asserts` counts the executed
    asserts that call a name which the code defines, `outside` those of them that were decided outside the
    code's process. The status is `passed` only if both are equal and above 0: `passed-in-process` means that the
    code could have influenced the result, `untested` that no assert called it, and `missing-module` that it imports
    a module which the sandbox does not provide.
    """

    status: Literal[
        "passed",
        "passed-in-process",
        "failed",
        "untested",
        "timeout",
        "denied",
        "missing-module",
        "crashed",
        "infrastructure",
    ]
    results: tuple[bool | None, ...] = ()
    detail: str = ""
    isolation: str = ""
    asserts: int = 0
    outside: int = 0


UtcTime = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$")]


class Rating(Record):
    """One person's rating of one answer.

    `completion` is the assistant's turn as generated, `edited` the person's corrected answer.
    `adapter_sha256` is None if the base model answered. `session` is a random id of a page visit.
    `supersedes` is the rating of the same generation that this one replaces. A rating leaves the machine
    only with `consent`; `redactions` counts the passages that were redacted before.
    """

    event_id: EventId
    generation_id: str = Field(pattern=r"^[\x21-\x7e]{1,200}$")
    session: str
    task: str
    prompt: str
    completion: str
    adapter_sha256: str | None
    base_revision: str
    decoding: dict[str, bool | int | FiniteFloat] = Field(default_factory=dict)
    rating: Literal["up", "down"]
    tags: tuple[str, ...] = ()
    edited: str | None = None
    comment: str = ""
    consent: bool
    redactions: int = 0
    app_version: str
    created_utc: UtcTime
    supersedes: EventId | None = None


class Tombstone(Record):
    """A deleted rating: every copy of it, and of the earlier ratings of its generation, is to be removed."""

    event_id: EventId
    created_utc: UtcTime
