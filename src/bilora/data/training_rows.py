"""The rows that one task is trained on, and the ratings that they were made from."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace

from bilora.data.ratings import GROUP, ratings_of, without_withdrawn
from bilora.records import Sample
from bilora.training_pairs import DpoPair, KtoPair


@dataclass(frozen=True)
class TrainingRows:
    """The splits that training reads, and the rated pairs that `split.preference` selects."""

    train: list[Sample]
    validation: list[Sample]
    pairs: list[KtoPair] | list[DpoPair]

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
