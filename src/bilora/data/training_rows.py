"""The training rows of one task, and the ratings that they come from."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from bilora.data.ratings import GROUP, rating_ids, without_withdrawn
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
        """The ids of the ratings in the training rows, sorted."""
        return rating_ids(self.train, self.pairs)

    @property
    def feedback_rows(self) -> int:
        """The number of training samples from ratings."""
        return sum(sample.group == GROUP for sample in self.train)

    def without(self, withdrawn: Set[str]) -> TrainingRows:
        """Return the rows without those of withdrawn ratings."""
        train, pairs = without_withdrawn(self.train, self.pairs, withdrawn)
        return replace(self, train=train, pairs=pairs)

    def fewer_than(self, others: TrainingRows) -> int:
        """Return how many more training rows `others` has."""
        return len(others.train) + len(others.pairs) - len(self.train) - len(self.pairs)


def read_training_rows(layout: Layout, task: str, preference: str | None) -> TrainingRows:
    """Return the rows that data-split wrote for a task; `preference` is the task's setting in params.yaml.

    Raises:
        MissingStep: data-split has not run.
        BadData: a line is not a sample or pair.
    """
    stage = f"data-split@{task}"
    train, validation = (
        list(read_records(require_file(layout.split(task, name), stage), Sample)) for name in ("train", "validation")
    )
    path = require_file(layout.split(task, "preference"), stage)
    pairs = list(read_records(path, PAIR_TYPES[preference])) if preference else []
    return TrainingRows(train, validation, pairs)
