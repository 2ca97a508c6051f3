"""The settings and rows of phases that train on samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field, model_validator

from bilora.plugins import PhaseSettings

if TYPE_CHECKING:
    from bilora.records import Sample
    from bilora.training.context import TrainingContext
    from bilora.training.preflight import Preflight


class SupervisedSettings(PhaseSettings):
    """Training by cross-entropy on answers. The result is the checkpoint with the best validation metric."""

    starts_fresh: ClassVar[bool] = True

    evaluate_every: int = Field(ge=1, description="steps between evaluations on the validation samples")
    patience: int = Field(default=3, ge=1, description="evaluations without a better one after which training stops")

    @model_validator(mode="after")
    def _evaluated_once(self) -> Self:
        if self.evaluate_every > self.steps:
            raise ValueError("evaluate_every is above steps, so no checkpoint would be evaluated; lower it")
        return self


@dataclass(frozen=True)
class SupervisedRows:
    """The training rows, and the rows of the validation loss."""

    train: Preflight
    validation: Preflight

    def summary_lines(self) -> list[str]:
        """Return the lines on the training rows to print before training."""
        return self.train.summary_lines()


def prepare_rows(context: TrainingContext, samples: Sequence[Sample]) -> SupervisedRows:
    """Encode and check the training samples and the validation subset.

    Raises:
        PreflightFailed: see `preflight`.
    """
    from bilora.training.preflight import preflight

    train, validation = (
        preflight(context.tokenizer, context.task, part, context.stop_ids, max_length=context.max_length)
        for part in (samples, context.validation_subset())
    )
    return SupervisedRows(train, validation)
