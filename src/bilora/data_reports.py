"""The reports that data-process and data-split write and report.html shows."""

from __future__ import annotations

from bilora.records import Record

RATINGS_LICENCE = "given with consent"
"""The licence of rows that come from ratings."""


class DropExample(Record):
    """One refused row: its source, the reason, and its beginning."""

    source: str
    detail: str
    excerpt: str


class DroppedRule(Record):
    """The number of rows that a rule refused, and the first of them as examples."""

    rule: str
    count: int
    examples: tuple[DropExample, ...]


class StageReport(Record):
    """A stage's report: the numbers of rows read and written, and of rows refused by each rule."""

    rows_in: int
    rows_out: int
    rules: tuple[DroppedRule, ...]


class ExecutionCounts(Record):
    """The number of references that were run, the number that passed their tests, and the isolation levels used."""

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
    """A sample that was dropped because it duplicates a test sample, and the rule that says so."""

    rule: str
    dropped: SplitSample
    kept: SplitSample


class SplitCounts(Record):
    """The number of samples of a split: in total, per tier, per licence, and per group (the largest groups only)."""

    rows: int
    tier: dict[str, int]
    licence: dict[str, int]
    groups: int
    group: dict[str, int]


class RatingsReport(Record):
    """The number of samples and preference pairs from ratings, and of ratings refused by each rule."""

    samples: int
    preferences: int
    rules: tuple[DroppedRule, ...]


class SplitReport(StageReport):
    """The report of data-split for one task.

    `dealt` counts samples by split before duplicates were dropped and splits were cut to their sizes; `feedback` is
    None if params.yaml does not use ratings.
    """

    dealt: dict[str, int]
    pairs: tuple[DuplicatePair, ...]
    splits: dict[str, SplitCounts]
    feedback: RatingsReport | None = None

    def licences(self) -> set[str]:
        """Return the licences of all rows, including rows from ratings."""
        rated = self.feedback is not None and bool(self.feedback.samples or self.feedback.preferences)
        counted = {licence for split in self.splits.values() for licence in split.licence}
        return counted | ({RATINGS_LICENCE} if rated else set())
