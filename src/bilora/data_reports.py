"""The reports of data-process and data-split, as these stages write them and report.html shows them."""

from __future__ import annotations

from bilora.records import Record

RATINGS_LICENCE = "given with consent"
"""The licence of rows that were made from ratings."""


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


class StageReport(Record):
    """What every stage reports: how many rows it read and kept, and what each rule refused."""

    rows_in: int
    rows_out: int
    rules: tuple[DroppedRule, ...]


class ExecutionCounts(Record):
    """How many references were run and passed their own tests, and in which kinds of isolation."""

    run: int
    passed: int
    isolation: tuple[str, ...]


class ProcessReport(StageReport):
    """The report of data-process for one task."""

    task: str
    execution: ExecutionCounts


class SplitSample(Record):
    """A sample and its split."""

    id: str
    source: str
    split: str


class DuplicatePair(Record):
    """A sample that was dropped because it repeats a test sample, and by which rule."""

    rule: str
    dropped: SplitSample
    kept: SplitSample


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


class SplitReport(StageReport):
    """The report of data-split for one task.

    `dealt` counts samples by split before repeats were dropped and splits cut to their counts; `feedback` is None
    where params want no ratings.
    """

    dealt: dict[str, int]
    pairs: tuple[DuplicatePair, ...]
    splits: dict[str, SplitCounts]
    feedback: RatingsReport | None = None

    def licences(self) -> set[str]:
        """Return the licences of all rows, those that ratings gave among them."""
        rated = self.feedback is not None and bool(self.feedback.samples or self.feedback.preferences)
        counted = {licence for split in self.splits.values() for licence in split.licence}
        return counted | ({RATINGS_LICENCE} if rated else set())
