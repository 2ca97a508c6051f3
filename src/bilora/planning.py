"""What a checkout's loop will take on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from bilora.estimate import PlannedTraining, StageTimes, estimate_stages, plan_training
from bilora.guards import task_guards
from bilora.library_logs import silence_libraries
from bilora.speed import ROW_TOKENS, AnswerSpeed, TrainingSpeed, measure_answers, measure_training

if TYPE_CHECKING:
    from bilora.factories import Factories


class Planning:
    """Estimates for the tasks of a workspace; the machine's speed is measured once."""

    def __init__(self, workspace: Factories) -> None:
        """Measure nothing yet."""
        self._workspace = workspace
        self._trainings: dict[str, PlannedTraining] = {}

    @cached_property
    def training_speed(self) -> TrainingSpeed:
        """How fast this machine trains, from some seconds of it."""
        silence_libraries()
        tasks = self._workspace.params.tasks
        return measure_training(self._workspace.base(), next(iter(tasks.values())).adapter, batch_size=self._batch_size)

    @cached_property
    def answer_speed(self) -> AnswerSpeed:
        """How fast it answers in evaluation."""
        silence_libraries()
        return measure_answers(self._workspace.base(), batch_size=self._batch_size)

    @property
    def _batch_size(self) -> int:
        return max(chosen.generation.batch_size for chosen in self._workspace.params.tasks.values())

    def training(self, name: str) -> PlannedTraining:
        """Estimate one task's training, once, from some of its rows if they are there."""
        if name not in self._trainings:
            self._trainings[name] = self._plan_training(name)
        return self._trainings[name]

    def memory_bytes(self, names: Sequence[str]) -> int:
        """Estimate the peak memory of a process that trains these tasks: an adapter of each, and one pass at a time."""
        plans = [self.training(name).plan for name in names]
        largest = max(plans, key=lambda plan: plan.memory_bytes)
        return largest.memory_bytes + sum(plan.adapter_bytes for plan in plans if plan is not largest)

    def _plan_training(self, name: str) -> PlannedTraining:
        from bilora.training.encode import row_lengths

        workspace = self._workspace
        (chosen, task), base, lengths = workspace.task(name), workspace.base(), [ROW_TOKENS]
        if workspace.split(name, "train").is_file():
            lengths = row_lengths(base, task, workspace.split_samples(name, "train"), chosen.training.max_length)
        return plan_training(chosen, task, base, self.training_speed, lengths)

    def stages(self, name: str) -> StageTimes:
        """Estimate the stages of one task."""
        workspace = self._workspace
        chosen, task = workspace.task(name)
        curated, guards = len(workspace.curated_samples(task)), list(task_guards(workspace.params, name).values())
        benchmark, training_s = workspace.params.benchmark, self.training(name).seconds
        return estimate_stages(chosen, task, benchmark, curated, self.answer_speed, training_s, guards)
