"""How long the loop takes on this machine: its measured speed, multiplied by what params.yaml asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bilora.params import Benchmark, TaskParams
from bilora.speed import ANSWER_TOKENS, ROW_TOKENS, AnswerSpeed, TrainingSpeed

if TYPE_CHECKING:
    from bilora.bases.base import Base
    from bilora.guards.guard import Guard
    from bilora.tasks.task import Task
    from bilora.training.plan import Plan

BASE_ANSWER_SHARE = 0.8
"""How much of `max_new_tokens` a base uses on average, which often does not end by itself."""
STEP_SHARE = 1.08
"""What a step takes beside its pass: the optimizer, returned memory, products of shapes that are new to oneDNN."""
EVALUATION_S = 0.2
"""What an evaluation takes beside its answers: the model is copied around its weights, a checkpoint written."""
PAIR_PASSES = 3
"""Passes per row of a phase that trains on pairs: it also measures the base on them."""
SECONDS_PER_ROW, SECONDS_PER_RUN = 0.005, 0.01
"""Reading and checking one row of a source; running one answer in the sandbox."""
START_S, BENCHMARK_S = 8.0, 20.0
"""Starting a stage that loads the base; judging and publishing."""


@dataclass(frozen=True)
class StageTimes:
    """Estimated seconds of one task's stages."""

    data: float
    train: float
    evaluate: float


@dataclass(frozen=True)
class PlannedTraining:
    """What a training is expected to take."""

    seconds: float
    plan: Plan


def plan_training(
    params: TaskParams, task: Task, base: Base, speed: TrainingSpeed, lengths: Sequence[int] = (ROW_TOKENS,)
) -> PlannedTraining:
    """Estimate the phases of one task's training.

    Args:
        lengths: of some of its rows, in tokens; a typical one if no data is there yet.
    """
    from bilora.training.plan import plan_task

    mean_length = sum(lengths) / len(lengths)
    validated = min(params.training.evaluate_samples, params.split.validation)
    answers = _Answers(task, speed.answers, mean_length)
    seconds = 0.0
    for phase in params.training.phases:
        rows = phase.steps * phase.accumulation * phase.batch_size
        seconds += rows * mean_length * speed.train_s * STEP_SHARE * (PAIR_PASSES if phase.pairs else 1)
        evaluations = phase.steps // getattr(phase, "evaluate_every", phase.steps)
        one = answers.seconds(validated, min(ANSWER_TOKENS, BASE_ANSWER_SHARE * params.generation.max_new_tokens))
        seconds += evaluations * (EVALUATION_S + one + validated * mean_length * speed.answers.prefill_s)
    return PlannedTraining(seconds, plan_task(base.config(), base, params, speed.kept_bytes, lengths))


@dataclass(frozen=True)
class _Answers:
    """What answering a task's prompts takes."""

    task: Task
    speed: AnswerSpeed
    row_tokens: float = ROW_TOKENS

    def seconds(self, count: int, tokens: float) -> float:
        """Return the seconds that `count` answers of `tokens` tokens take, scoring included."""
        prompt = max(0.0, self.row_tokens - ANSWER_TOKENS) * self.speed.prefill_s
        run = SECONDS_PER_RUN if self.task.execution_metric else 0.0
        return count * (prompt + tokens * self.speed.decode_s + run)


def estimate_stages(
    params: TaskParams,
    task: Task,
    benchmark: Benchmark,
    curated: int,
    speed: AnswerSpeed,
    training_s: float,
    guards: Sequence[Guard] = (),
) -> StageTimes:
    """Estimate how long one task's stages take.

    Args:
        curated: how many curated samples the task has.
        speed: of base and adapter in evaluation.
        training_s: the phases of its training; see `plan_training`.
        guards: the public sets that the task is measured on besides.
    """
    split, generation = params.split, params.generation
    base_tokens = BASE_ANSWER_SHARE * generation.max_new_tokens
    adapter_tokens = min(ANSWER_TOKENS, base_tokens)
    answers = _Answers(task, speed).seconds
    validated = min(params.training.evaluate_samples, split.validation)
    test = min(benchmark.samples, split.test)
    asked = test + curated
    if task.hide_tests:
        asked += min(benchmark.hidden_tests, test)
    if benchmark.pass_at_k and task.execution_metric:
        asked += min(benchmark.pass_at_k.samples, test) * benchmark.pass_at_k.answers
    evaluate = START_S + answers(asked, base_tokens) + answers(asked, adapter_tokens)
    for guard in guards:
        evaluate += answers(guard.size, BASE_ANSWER_SHARE * guard.max_new_tokens) + answers(guard.size, adapter_tokens)
    return StageTimes(
        data=START_S + SECONDS_PER_ROW * (split.train + split.validation + split.test),
        train=START_S + answers(validated, base_tokens) + training_s,
        evaluate=evaluate,
    )


def in_words(seconds: float) -> str:
    """Return a duration as precisely as it is known."""
    if seconds < 90:
        return f"about {max(10, round(seconds, -1)):.0f} seconds"
    minutes = round(seconds / 60)
    return f"about {minutes} minutes" if minutes < 100 else f"about {seconds / 3600:.1f} hours"
