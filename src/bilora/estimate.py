"""Estimate how long the pipeline takes on this machine, from its measured speed and the sizes in params.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bilora.params import Benchmark, TaskParams
from bilora.speed import COMPLETION_TOKENS, ROW_TOKENS, GenerationSpeed, TrainingSpeed

if TYPE_CHECKING:
    from bilora.bases.base import Base
    from bilora.guards.guard import Guard
    from bilora.tasks.task import Task
    from bilora.training.plan import Plan

BASE_COMPLETION_SHARE = 0.8
"""Mean length of the base's completions relative to `max_new_tokens`: they often lack an EOS token."""
STEP_OVERHEAD = 1.08
"""Time of a training step relative to its passes: optimizer, memory management, new shapes in oneDNN."""
EVALUATION_S = 0.2
"""Seconds of an evaluation in addition to its completions: a copy of the modules, and a checkpoint."""
PAIR_PASSES = 3
"""Passes per row of a phase on preference pairs, including those of the reference model."""
SECONDS_PER_ROW, SECONDS_PER_RUN = 0.005, 0.01
"""To read and check a row of a source; to run a completion in the sandbox."""
START_S, BENCHMARK_S = 8.0, 20.0
"""To start a stage that loads the base; for the stages benchmark and push-adapters."""


@dataclass(frozen=True)
class StageTimes:
    """Estimated seconds of one task's stages."""

    data: float
    train: float
    evaluate: float


@dataclass(frozen=True)
class PlannedTraining:
    """The expected seconds of a training, and its sizes."""

    seconds: float
    plan: Plan


def plan_training(
    params: TaskParams, task: Task, base: Base, speed: TrainingSpeed, lengths: Sequence[int] = (ROW_TOKENS,)
) -> PlannedTraining:
    """Estimate the phases of one task's training.

    Args:
        lengths: in tokens, of some of its rows; a typical length if there is no data yet.
    """
    from bilora.training.plan import plan_task

    mean_length = sum(lengths) / len(lengths)
    validated = min(params.training.evaluate_samples, params.split.validation)
    completion_tokens = min(COMPLETION_TOKENS, BASE_COMPLETION_SHARE * params.generation.max_new_tokens)
    generation_s = _GenerationTime(task, speed.generation, mean_length).seconds(validated, completion_tokens)
    evaluation_s = EVALUATION_S + generation_s + validated * mean_length * speed.generation.prefill_s
    seconds = 0.0
    for phase in params.training.phases:
        rows = phase.steps * phase.accumulation * phase.batch_size
        seconds += rows * mean_length * speed.train_s * STEP_OVERHEAD * (PAIR_PASSES if phase.pairs else 1)
        seconds += phase.steps // getattr(phase, "evaluate_every", phase.steps) * evaluation_s
    return PlannedTraining(seconds, plan_task(base.config(), base, params, speed.saved_bytes, lengths))


@dataclass(frozen=True)
class _GenerationTime:
    """The time to generate and score completions for a task's prompts."""

    task: Task
    speed: GenerationSpeed
    row_tokens: float = ROW_TOKENS

    def seconds(self, count: int, tokens: float) -> float:
        """Return the seconds of `count` completions of `tokens` tokens."""
        prompt = max(0.0, self.row_tokens - COMPLETION_TOKENS) * self.speed.prefill_s
        run = SECONDS_PER_RUN if self.task.execution_metric else 0.0
        return count * (prompt + tokens * self.speed.decode_s + run)


def estimate_stages(
    params: TaskParams,
    task: Task,
    benchmark: Benchmark,
    curated: int,
    speed: GenerationSpeed,
    training_s: float,
    guards: Sequence[Guard] = (),
) -> StageTimes:
    """Estimate how long one task's stages take.

    Args:
        curated: the number of the task's curated samples.
        speed: of base and adapter in evaluation.
        training_s: of the training phases; see `plan_training`.
        guards: the guards of the task.
    """
    split, generation = params.split, params.generation
    base_tokens = BASE_COMPLETION_SHARE * generation.max_new_tokens
    adapter_tokens = min(COMPLETION_TOKENS, base_tokens)
    seconds = _GenerationTime(task, speed).seconds
    validated = min(params.training.evaluate_samples, split.validation)
    test = min(benchmark.samples, split.test)
    completions = test + curated
    if task.hide_tests:
        completions += min(benchmark.hidden_tests, test)
    if benchmark.pass_at_k and task.execution_metric:
        completions += min(benchmark.pass_at_k.samples, test) * benchmark.pass_at_k.answers
    evaluate = START_S + seconds(completions, base_tokens) + seconds(completions, adapter_tokens)
    for guard in guards:
        evaluate += seconds(guard.size, BASE_COMPLETION_SHARE * guard.max_new_tokens)
        evaluate += seconds(guard.size, adapter_tokens)
    return StageTimes(
        data=START_S + SECONDS_PER_ROW * (split.train + split.validation + split.test),
        train=START_S + seconds(validated, base_tokens) + training_s,
        evaluate=evaluate,
    )


def format_duration(seconds: float) -> str:
    """Return a duration as text, rounded to the precision of an estimate."""
    if seconds < 90:
        return f"about {max(10, round(seconds, -1)):.0f} seconds"
    minutes = round(seconds / 60)
    return f"about {minutes} minutes" if minutes < 100 else f"about {seconds / 3600:.1f} hours"
