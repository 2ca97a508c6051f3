"""What data-process and data-split report: how many rows came in and out, and what each rule refused."""

from __future__ import annotations

from bilora.records import Record


class DropExample(Record):
    """One refused row: where it comes from, why it was refused, and how it begins."""

    source: str
    detail: str
    excerpt: str


class DroppedRule(Record):
    """How many rows a rule refused, and the first few of them."""

    rule: str
    count: int
    examples: tuple[DropExample, ...]


class ExecutionCounts(Record):
    """How many references were run and passed their own tests, and in which kinds of isolation."""

    run: int
    passed: int
    isolation: tuple[str, ...]


class ProcessReport(Record):
    """The report of data-process for one task."""

    task: str
    rows_in: int
    rows_out: int
    execution: ExecutionCounts
    rules: tuple[DroppedRule, ...]


class PlacedSample(Record):
    """A sample and its split."""

    id: str
    source: str
    split: str


class RepeatedPair(Record):
    """A sample that was dropped because it repeats a test sample, and by which rule."""

    rule: str
    dropped: PlacedSample
    kept: PlacedSample


class SplitCounts(Record):
    """How many samples a split has, in all and per tier, licence and (the largest) groups."""

    rows: int
    tier: dict[str, int]
    licence: dict[str, int]
    groups: int
    group: dict[str, int]


class RatingsReport(Record):
    """How many samples and preference pairs the ratings gave, and what each rule refused."""

    samples: int
    preferences: int
    rules: tuple[DroppedRule, ...]


class SplitReport(Record):
    """The report of data-split for one task. `feedback` is None where params ask for no ratings."""

    rows_in: int
    rows_out: int
    dealt: dict[str, int]
    pairs: tuple[RepeatedPair, ...]
    rules: tuple[DroppedRule, ...]
    splits: dict[str, SplitCounts]
    feedback: RatingsReport | None = None
