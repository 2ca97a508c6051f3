"""The result of a sweep, which `bilora sweep` writes and report.html shows."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence

from bilora.records import Record


class Variant(Record):
    """The hyperparameters of one training in a sweep."""

    learning_rate: float
    rank: int
    alpha: int
    target_modules: tuple[str, ...]
    seed: int

    @property
    def settings(self) -> Variant:
        """The variant without its seed (0), equal for all seeds."""
        return self.model_copy(update={"seed": 0})


class VariantResult(Record):
    """The validation results of one variant.

    `metric` is the task's headline metric at the best checkpoint, `validation_loss` the loss at the best checkpoint.
    `seconds` is the variant's share of the time.
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
    """The results of all variants of a task's training."""

    task: str
    base_id: str
    metric: str
    validation_samples: int
    results: tuple[VariantResult, ...]

    @property
    def best(self) -> Variant:
        """The best settings; see `best_settings`."""
        return best_settings(self.results)


def best_settings(results: Sequence[VariantResult]) -> Variant:
    """Return the settings with the highest mean metric over their seeds; the lowest mean loss breaks ties."""
    groups: dict[Variant, list[VariantResult]] = defaultdict(list)
    for result in results:
        groups[result.variant.settings].append(result)

    def quality(settings: Variant) -> tuple[float, float]:
        group = groups[settings]
        mean_loss = statistics.fmean(result.validation_loss for result in group)
        return statistics.fmean(result.metric for result in group), -mean_loss

    return max(groups, key=quality)
