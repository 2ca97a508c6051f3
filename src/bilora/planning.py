"""Estimate the pipeline's time and memory on this machine for the tasks of a workspace."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from bilora.estimate import PlannedTraining, StageTimes, estimate_stages, plan_training
from bilora.guards import task_guards
from bilora.library_logs import silence_libraries
from bilora.speed import ROW_TOKENS, GenerationSpeed, TrainingSpeed, measure_generation, measure_training

if TYPE_CHECKING:
    from bilora.factories import Factories


class Planner:
    """Estimates for the tasks of a workspace. The machine's speed is measured once, when it is first needed."""

    def __init__(self, workspace: Factories) -> None:
        self._workspace = workspace
        self._trainings: dict[str, PlannedTraining] = {}

    @cached_property
    def training_speed(self) -> TrainingSpeed:
        """The measured speed of training."""
        silence_libraries()
        tasks = self._workspace.params.tasks
        return measure_training(self._workspace.base(), next(iter(tasks.values())).adapter, batch_size=self._batch_size)

    @cached_property
    def generation_speed(self) -> GenerationSpeed:
        """The measured speed of generation in evaluation."""
        silence_libraries()
        return measure_generation(self._workspace.base(), batch_size=self._batch_size)

    @property
    def _batch_size(self) -> int:
        return max(params.generation.batch_size for params in self._workspace.params.tasks.values())

    def training(self, name: str) -> PlannedTraining:
        """Return the estimate of a task's training, from the lengths of its rows if they exist."""
        if name not in self._trainings:
            self._trainings[name] = self._plan_training(name)
        return self._trainings[name]

    def memory_bytes(self, names: Sequence[str]) -> int:
        """Return the estimated peak memory of a process that trains these tasks together, one pass at a time."""
        plans = [self.training(name).plan for name in names]
        largest = max(plans, key=lambda plan: plan.memory_bytes)
        return largest.memory_bytes + sum(plan.adapter_bytes for plan in plans if plan is not largest)

    def _plan_training(self, name: str) -> PlannedTraining:
        from bilora.training.encode import row_lengths

        workspace = self._workspace
        (params, task), base, lengths = workspace.task(name), workspace.base(), [ROW_TOKENS]
        if workspace.split(name, "train").is_file():
            lengths = row_lengths(base, task, workspace.split_samples(name, "train"), params.training.max_length)
        return plan_training(params, task, base, self.training_speed, lengths)

    def stage_times(self, name: str) -> StageTimes:
        """Return the estimated times of a task's stages."""
        workspace = self._workspace
        params, task = workspace.task(name)
        curated, guards = len(workspace.curated_samples(task)), list(task_guards(workspace.params, name).values())
        benchmark, training_s = workspace.params.benchmark, self.training(name).seconds
        return estimate_stages(params, task, benchmark, curated, self.generation_speed, training_s, guards)
