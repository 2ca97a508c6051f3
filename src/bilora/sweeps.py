"""The result of a sweep, as `bilora sweep` writes it and report.html shows it."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence

from bilora.records import Record


class Variant(Record):
    """What a sweep changes of a task's params."""

    learning_rate: float
    rank: int
    alpha: int
    target_modules: tuple[str, ...]
    seed: int

    @property
    def settings(self) -> Variant:
        """The variant whatever its seed."""
        return self.model_copy(update={"seed": 0})


class VariantResult(Record):
    """What one variant reached on the validation sample with its best checkpoint.

    `metric` is the task's headline, `validation_loss` that of the last evaluation; `seconds` are the variant's share.
    """

    variant: Variant
    trainable_parameters: int
    metric: float
    validation_loss: float
    best_step: int
    steps: int
    tokens: int
    seconds: float


class Sweep(Record):
    """All variants of one task's training."""

    task: str
    base_id: str
    metric: str
    validation_samples: int
    results: tuple[VariantResult, ...]

    @property
    def chosen(self) -> Variant:
        """The best settings, whatever their seed: by the mean metric, ties by the mean loss."""
        return choose(self.results)


def choose(results: Sequence[VariantResult]) -> Variant:
    """Return the settings with the highest mean metric over their seeds, of equal ones those with the lowest loss."""
    groups: dict[Variant, list[VariantResult]] = defaultdict(list)
    for result in results:
        groups[result.variant.settings].append(result)

    def quality(settings: Variant) -> tuple[float, float]:
        found = groups[settings]
        mean_loss = statistics.fmean(one.validation_loss for one in found)
        return statistics.fmean(one.metric for one in found), -mean_loss

    return max(groups, key=quality)
