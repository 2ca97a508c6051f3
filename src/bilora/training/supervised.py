"""What phases have in common that train on samples: their settings and their rows."""

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
    """Training by cross-entropy on answers. The checkpoint with the best validation metric is kept."""

    starts_fresh: ClassVar[bool] = True

    evaluate_every: int = Field(ge=1, description="steps between evaluations on the validation samples")
    patience: int = Field(3, ge=1, description="evaluations without a better one after which training stops")

    @model_validator(mode="after")
    def _evaluated_once(self) -> Self:
        if self.evaluate_every > self.steps:
            raise ValueError("evaluate_every is above steps: no checkpoint would ever be measured")
        return self


@dataclass(frozen=True)
class SupervisedRows:
    """The rows that are trained on, and those that the validation loss is measured on."""

    train: Preflight
    validation: Preflight

    def lines(self) -> list[str]:
        """Return what a person should see of the training rows."""
        return self.train.lines()


def prepare_rows(context: TrainingContext, samples: Sequence[Sample]) -> SupervisedRows:
    """Encode and check the samples to train on and the validation sample.

    Raises:
        PreflightFailed: training would not teach what it should.
    """
    from bilora.training.preflight import preflight

    train, validation = (
        preflight(context.tokenizer, context.task, part, context.stops, max_length=context.max_length)
        for part in (samples, context.validation_sample())
    )
    return SupervisedRows(train, validation)
