"""Supervised fine-tuning on the training split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bilora.errors import PreflightFailed
from bilora.training.context import TrainingContext, draw_samples
from bilora.training.phase import Phase, PhaseResult
from bilora.training.supervised import SupervisedRows, SupervisedSettings, prepare_rows

if TYPE_CHECKING:
    from bilora.records import Sample
    from bilora.tasks.task import Task


class SftSettings(SupervisedSettings):
    """Supervised fine-tuning on the training split."""

    kind: Literal["sft"]
    hidden_tests: float = Field(
        default=0.0, ge=0.0, le=1.0, description="share of training prompts without their visible test"
    )


class Sft:
    """Trains on the training split; the result is the best checkpoint. A killed phase resumes from its last one."""

    settings = SftSettings

    def prepare(self, context: TrainingContext, settings: SftSettings) -> SupervisedRows:
        """Encode the training split and the validation subset.

        Raises:
            PreflightFailed: see `preflight`; or the task's prompts have no visible test to hide.
        """
        samples = hide_some_tests(context.task, context.train_samples, settings.hidden_tests, context.seed)
        return prepare_rows(context, samples)

    def run(self, context: TrainingContext, settings: SftSettings, prepared: SupervisedRows) -> PhaseResult:
        """Train the adapter; the result is the best checkpoint."""
        from bilora.training.sft_trainer import train_supervised

        return train_supervised(context, settings, prepared)


def hide_some_tests(task: Task, samples: Sequence[Sample], share: float, seed: int) -> list[Sample]:
    """Return the samples, a random share of them without the visible test in the prompt.

    Raises:
        PreflightFailed: the task's prompts have no visible test.
    """
    if share and task.hide_tests is None:
        raise PreflightFailed(f"{task.name} shows no tests; remove hidden_tests from its training.phases.")
    hidden = {sample.id for sample in draw_samples(samples, round(share * len(samples)), seed)}
    return [task.hide_tests(sample) if task.hide_tests and sample.id in hidden else sample for sample in samples]


PHASE: Phase[SftSettings, SupervisedRows] = Sft()
