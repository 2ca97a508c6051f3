"""The rows that one task is trained on, and the ratings that they were made from."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from bilora.data.ratings import GROUP, ratings_of, without_withdrawn
from bilora.layout import Layout
from bilora.records import Sample
from bilora.storage import read_records, require_file
from bilora.training_pairs import PAIR_TYPES, DpoPair, KtoPair


@dataclass(frozen=True)
class TrainingRows:
    """The splits that training reads, and the rated pairs that `split.preference` selects."""

    train: list[Sample]
    validation: list[Sample]
    pairs: Sequence[KtoPair | DpoPair]

    @property
    def ratings(self) -> tuple[str, ...]:
        """The ids of the ratings whose rows are trained on, sorted."""
        return ratings_of(self.train, self.pairs)

    @property
    def feedback_rows(self) -> int:
        """How many training samples people wrote."""
        return sum(sample.group == GROUP for sample in self.train)

    def without(self, withdrawn: Set[str]) -> TrainingRows:
        """Return the rows that were made from none of these ratings."""
        train, pairs = without_withdrawn(self.train, self.pairs, withdrawn)
        return replace(self, train=train, pairs=pairs)

    def fewer_than(self, others: TrainingRows) -> int:
        """Return how many training rows `others` has more."""
        return len(others.train) + len(others.pairs) - len(self.train) - len(self.pairs)


def read_training_rows(layout: Layout, task: str, preference: str | None) -> TrainingRows:
    """Read what data-split wrote for a task's training; `preference` is that of its params.

    Raises:
        MissingStep: it has not run.
        BadData: a line is no sample or no pair.
    """
    stage = f"data-split@{task}"
    train, validation = (
        list(read_records(require_file(layout.split(task, name), stage), Sample)) for name in ("train", "validation")
    )
    path = require_file(layout.split(task, "preference"), stage)
    pairs = list(read_records(path, PAIR_TYPES[preference])) if preference else []
    return TrainingRows(train, validation, pairs)
