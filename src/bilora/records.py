"""The domain types: frozen, closed, and the only things that cross a file or a wire."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "validation", "test", "prompt"]
"""`prompt` rows are few-shot examples by their source's own rule: kept by data-process, in no split."""
Row = Mapping[str, object]
"""A raw row as a source delivers it; each task's `sample` gives it meaning."""

EventId = Annotated[str, Field(pattern=r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
"""A ULID (github.com/ulid/spec): sorts by the time it was made at, in milliseconds."""


class Record(BaseModel):
    """Base of all domain types: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(Record):
    """One turn of a chat."""

    role: Role
    content: str


class Sample(Record):
    """One question with its reference answer.

    `target` is the bare reference (code, docstring). `tests` are assert statements, run after
    `target` and then `setup`; the first may be visible in `prompt`. `group` is the unit that is
    never divided by the split (repository, package, composition). `tier` names a difficulty
    class for reporting, or is empty. `split` is set when the source has an official one.
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
        """Build a sample whose id is the hash of its task, prompt and target."""
        digest = hashlib.sha256("\x00".join((task, prompt, target)).encode()).hexdigest()[:16]
        return cls(id=digest, task=task, prompt=prompt, target=target, **fields)


class Drop(Record):
    """A row that was refused, by which rule, and what it looked like."""

    rule: str
    detail: str = ""


class Completion(Record):
    """One answer of one system. Times in seconds, counts in tokens. `reason` says why there is none.

    The counts are None where a server gives none. `remark` says which parameters were left out or
    replaced because the server refuses them: such an answer may not be greedy.
    `first_token_s` runs from the request to the first token, in a benchmark's batch from the row's start; None
    where it was not observed.
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
    """One metric's verdict on one completion.

    `value` is in [0, 1], higher is better. None means *unscored*: the judge or the sandbox
    failed, not the model. Unscored is never averaged as 0.
    """

    sample_id: str
    system: str
    metric: str
    value: float | None = Field(ge=0.0, le=1.0)
    reason: str = ""
    evidence: dict[str, str] = Field(default_factory=dict)


Dataset = Annotated[str, Field(pattern=r"^(test|curated|hidden|sampled|guard:[a-z0-9_]+)$")]
"""The held-out split, the curated samples, the split without the tests shown, several answers to one sample, a guard.

A guard's is `GUARD_PREFIX` and its name.
"""
GUARD_PREFIX = "guard:"


def guard_dataset(name: str) -> Dataset:
    """Return the dataset of a guard's rows."""
    return GUARD_PREFIX + name


class Scale(Record):
    """How a metric's values are written for people: `value * factor + offset` with `digits` decimals, then `unit`.

    `meaning` says in a sentence what the number is.
    """

    label: str
    factor: float = 100.0
    offset: float = 0.0
    unit: str = ""
    digits: int = 1
    meaning: str = ""

    def number(self, value: float) -> str:
        """Return the value without its unit."""
        return f"{value * self.factor + self.offset:.{self.digits}f}"

    def text(self, value: float) -> str:
        """Return the value with its unit."""
        return self.number(value) + self.unit

    def difference(self, value: float) -> str:
        """Return a difference of two values in points, with its sign."""
        return f"{value * self.factor:+.{self.digits}f}"


class EvalRow(Record):
    """One line of an evaluation: a sample, one system's completion, the answer read from it, and its scores.

    `adapter_sha256` names the adapter that this evaluation measured, on the rows of all systems.
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
    """How a judge did where the right grade is known; in points of its scale from 1 to 5.

    `gap`: a right answer above a wrong one. `uplift`: what a plea for five points gains. `flips`:
    share of samples in which another order changes the winner. None where nothing could be scored.
    `unreachable`: nothing was scored because of the endpoint, so it says nothing about the judge. `remark`
    says which parameters the judge's server refuses.
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
            verdict += f"; asked {self.remark}"
        return f"{self.model}, {self.scored} samples scored, {self.unscored} not: {numbers}; {verdict}."


class RunRecord(Record):
    """What made an adapter: enough to make it again, or to see why it came out differently.

    `mode` is the device and the base's precision, `ratings` are the events whose rows its training read. `planned_s`
    and `planned_memory_bytes` are what it was expected to take. All are None in records from before they were recorded.
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
    """Model-written code and how to try it: code, then setup, then each test."""

    code: str
    setup: str = ""
    tests: tuple[str, ...] = ()


class Outcome(Record):
    """What the sandbox saw.

    `results` holds one entry per test: passed, failed, or None if never reached. `asserts` counts the executed
    asserts that call a name which the code defines, `outside` those of them that were decided outside the
    code's process. Only if these are equal, and not 0, is the status `passed`: `passed-in-process` means that the
    code could have had a say, `untested` that nothing was asserted of it, and `missing-module` that it needs a
    module which the sandbox does not offer.
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
    """What one person said of one answer.

    `completion` is the assistant's turn as it was generated, `edited` the answer it should have been.
    `adapter_sha256` is None if the base itself answered. `session` is a random id of a page visit.
    `supersedes` names the rating of the same generation that this one replaces. Only with `consent` does
    a rating leave the machine; `redactions` counts what was blackened on the way.
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
    """A rating that was deleted: it and the earlier ones of its generation are to be nowhere."""

    event_id: EventId
    created_utc: UtcTime
