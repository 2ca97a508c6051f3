"""Ask every system every question and score the answers. Expensive; says nothing about pass or fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bilora.params import Benchmark, Generation
from bilora.protocols import Engine, Judge, Progress, Referees, no_progress
from bilora.records import Completion, Dataset, Sample, Score, Scored
from bilora.requests import Request
from bilora.tasks.task import Task

FLOOR = "floor:"
"""Prefix of the systems that answer without a model."""


@dataclass(frozen=True)
class Round:
    """Questions to every system: each sample is asked `answers` times, at `temperature` or as the task is."""

    samples: Sequence[Sample]
    answers: int = 1
    temperature: float | None = None

    @property
    def asked(self) -> list[Sample]:
        """One sample an answer."""
        return [*self.samples] * self.answers

    def requests(self, task: Task, generation: Generation, seed: int) -> list[Request]:
        """One request an answer; every further answer to a sample has a seed of its own."""
        if self.temperature is not None:
            generation = generation.model_copy(update={"temperature": self.temperature})
        return [
            request for turn in range(self.answers) for request in task.requests(self.samples, generation, seed + turn)
        ]


def rounds(task: Task, test: Sequence[Sample], curated: Sequence[Sample], settings: Benchmark) -> dict[Dataset, Round]:
    """Return all that one task is asked; only "test" decides, the others tell more."""
    found: dict[Dataset, Round] = {"test": Round(test), "curated": Round(curated)}
    if task.hide_tests and settings.hidden_tests:
        found["hidden"] = Round([task.hide_tests(sample) for sample in test[: settings.hidden_tests]])
    if settings.pass_at_k and "pass_at_1" in task.metric_names:
        many = settings.pass_at_k
        found["sampled"] = Round(test[: many.samples], many.answers, many.temperature)
    return found


def _floor(task: Task, name: str, samples: Sequence[Sample]) -> list[Completion]:
    return [
        Completion(
            sample_id=sample.id,
            system=FLOOR + name,
            text=task.floors[name](sample),
            prompt_tokens=0,
            output_tokens=0,
            latency_s=0.0,
            finish="stop",
        )
        for sample in samples
    ]


def _judged(
    task: Task, judge: Judge, answers: Mapping[str, Sequence[Completion]], samples: Sequence[Sample]
) -> dict[tuple[str, str], Score]:
    """Rate all systems of each sample in one call; key: (system, sample id)."""
    rated: dict[tuple[str, str], Score] = {}
    for index, sample in enumerate(samples):
        texts = {
            system: task.read_answer(made[index].text, sample.prompt)
            for system, made in answers.items()
            if not system.startswith(FLOOR) and made[index].finish != "error"
        }
        for system, score in judge.rate(sample, texts).items() if texts else ():
            rated[system, sample.id] = score
    return rated


def evaluate(
    task: Task,
    datasets: Mapping[Dataset, Round],
    engines: Mapping[str, Engine],
    *,
    adapter_sha256: str,
    generation: Generation,
    seed: int,
    referees: Referees,
    judge: Judge | None = None,
    progress: Progress = no_progress,
) -> list[Scored]:
    """Return one row a system and sample, systems in the order of `engines`, then the task's floors.

    Args:
        datasets: what is asked; see `rounds`.
        engines: who answers as which system.
        adapter_sha256: of the adapter that is being measured.
        judge: rates the curated set only; its calls cost money.
        progress: called with the number of answers just made.
    """
    rows: list[Scored] = []
    for dataset, questions in datasets.items():
        samples, requests = questions.asked, questions.requests(task, generation, seed)
        answers: dict[str, list[Completion]] = {
            system: engine.generate(system, requests, progress=progress) for system, engine in engines.items()
        }
        answers |= {FLOOR + name: _floor(task, name, samples) for name in task.floors}
        ratings = _judged(task, judge, answers, samples) if judge and dataset == "curated" else {}
        for system, made in answers.items():
            rows += _scored(task, adapter_sha256, dataset, samples, made, system, referees, ratings)
    return rows


def _scored(
    task: Task,
    adapter_sha256: str,
    dataset: Dataset,
    samples: Sequence[Sample],
    made: Sequence[Completion],
    system: str,
    referees: Referees,
    ratings: Mapping[tuple[str, str], Score],
) -> list[Scored]:
    pairs = [(sample, task.read_answer(one.text, sample.prompt)) for sample, one in zip(samples, made, strict=True)]
    by_metric = [metric.score(pairs, referees, system=system) for metric in task.metrics]
    rows = []
    for index, (sample, answer) in enumerate(pairs):
        scores = [score for column in by_metric for score in column[index]]
        if made[index].finish == "error":
            reason = f"no answer came: {made[index].reason or 'the system gave no reason'}"
            scores = [score.model_copy(update={"value": None, "reason": reason}) for score in scores]
        if rating := ratings.get((system, sample.id)):
            scores.append(rating)
        rows.append(
            Scored(
                task=task.name,
                adapter_sha256=adapter_sha256,
                dataset=dataset,
                sample=sample,
                completion=made[index],
                answer=answer,
                scores=tuple(scores),
            )
        )
    return rows
