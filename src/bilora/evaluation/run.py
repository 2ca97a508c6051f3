"""Send every question to every system and score the answers. Slow; decides nothing about pass or fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

from bilora.guards.guard import Guard
from bilora.params import Benchmark, Generation
from bilora.protocols import Engine, Judge, Progress, ProgressBars, Referees, no_bar, no_progress
from bilora.records import Completion, Dataset, EvalRow, Sample, Score
from bilora.requests import Request
from bilora.tasks.task import Task

TRIVIAL_PREFIX = "floor:"
"""Prefix of the systems that answer without a model."""


@dataclass(frozen=True)
class EvalSet:
    """Questions: each sample gets `answers` answers of every system, or of base and adapter only if `local`.

    `decoding` are generation settings that replace the task's.
    """

    samples: Sequence[Sample]
    answers: int = 1
    decoding: Mapping[str, float] = field(default_factory=dict)
    local: bool = False

    @property
    def repeated_samples(self) -> list[Sample]:
        """One sample per answer."""
        return [*self.samples] * self.answers

    def requests(self, task: Task, generation: Generation, seed: int) -> list[Request]:
        """Return one request per answer; every further answer to a sample has a seed of its own."""
        generation = generation.model_copy(update=self.decoding)
        return [
            request for turn in range(self.answers) for request in task.requests(self.samples, generation, seed + turn)
        ]

    def asked(self, task: str, engines: Mapping[str, Engine]) -> dict[str, Engine]:
        """Return those of `engines` that are asked, by system."""
        return {name: engine for name, engine in engines.items() if not self.local or name in ("base", task)}


def eval_sets(
    task: Task, test: Sequence[Sample], curated: Sequence[Sample], settings: Benchmark
) -> dict[Dataset, EvalSet]:
    """Return the questions of one task by dataset; guards are not among them."""
    found: dict[Dataset, EvalSet] = {"test": EvalSet(test), "curated": EvalSet(curated)}
    if task.hide_tests and settings.hidden_tests:
        found["hidden"] = EvalSet([task.hide_tests(sample) for sample in test[: settings.hidden_tests]])
    if (drawn := settings.pass_at_k) and task.execution_metric:
        found["sampled"] = EvalSet(test[: drawn.samples], drawn.answers, {"temperature": drawn.temperature})
    return found


def guard_eval_set(guard: Guard, samples: Sequence[Sample]) -> EvalSet:
    """Return the questions of a guard, for base and adapter."""
    return EvalSet(samples, decoding=guard.decoding, local=True)


@dataclass(frozen=True)
class EvalConfig:
    """What is measured and how: one task's adapter, by its bytes, with the task's decoding and the referees."""

    task: Task
    adapter_sha256: str
    generation: Generation
    seed: int
    referees: Referees


def evaluate(
    measurement: EvalConfig,
    datasets: Mapping[Dataset, EvalSet],
    engines: Mapping[str, Engine],
    *,
    progress: Progress = no_progress,
    bars: ProgressBars = no_bar,
) -> list[EvalRow]:
    """Return one row per system and sample, systems in the order of `engines`, then the task's trivial_answers.

    The judge rates the curated dataset only, since its calls cost money.

    Args:
        datasets: the questions; see `eval_sets`.
        engines: who answers as which system.
        progress: called with the number of answers just made.
        bars: show the scoring.
    """
    task, judge = measurement.task, measurement.referees.judge
    rows: list[EvalRow] = []
    by_dataset = _answers(measurement, datasets, engines, progress)
    for dataset, questions in datasets.items():
        samples = questions.repeated_samples
        answers = by_dataset[dataset] | {
            TRIVIAL_PREFIX + name: _trivial_completions(task, name, samples) for name in task.trivial_answers
        }
        grades = _grades(task, judge, answers, samples) if judge and dataset == "curated" else {}
        for system, completions in answers.items():
            with bars(f"score {system} on {dataset}", len(samples) * len(task.metrics)) as tick:
                scored = list(zip(samples, completions, strict=True))
                rows += _scored(measurement, dataset, system, scored, grades, tick)
    return rows


def _answers(
    measurement: EvalConfig, datasets: Mapping[Dataset, EvalSet], engines: Mapping[str, Engine], progress: Progress
) -> dict[Dataset, dict[str, list[Completion]]]:
    """Ask each system all its questions at once: the last, long answers of a dataset share passes with the next one."""
    task, found = measurement.task, {dataset: dict[str, list[Completion]]() for dataset in datasets}
    for system, engine in engines.items():
        requests = {
            dataset: questions.requests(task, measurement.generation, measurement.seed)
            for dataset, questions in datasets.items()
            if system in questions.asked(task.name, engines)
        }
        completions = iter(engine.generate(system, list(chain(*requests.values())), progress=progress))
        for dataset, part in requests.items():
            found[dataset][system] = list(islice(completions, len(part)))
    return found


def _trivial_completions(task: Task, name: str, samples: Sequence[Sample]) -> list[Completion]:
    return [
        Completion(
            sample_id=sample.id,
            system=TRIVIAL_PREFIX + name,
            text=task.trivial_answers[name](sample),
            prompt_tokens=0,
            output_tokens=0,
            latency_s=0.0,
            finish="stop",
        )
        for sample in samples
    ]


_Grades = Mapping[tuple[str, str], Score]
"""The judge's scores by system and sample id."""


def _grades(
    task: Task, judge: Judge, answers: Mapping[str, Sequence[Completion]], samples: Sequence[Sample]
) -> _Grades:
    """Rate all systems of each sample in one call."""
    grades: dict[tuple[str, str], Score] = {}
    for index, sample in enumerate(samples):
        texts = {
            system: task.read_answer(completions[index].text, sample.prompt)
            for system, completions in answers.items()
            if not system.startswith(TRIVIAL_PREFIX) and completions[index].finish != "error"
        }
        for system, score in judge.rate(sample, texts).items() if texts else ():
            grades[system, sample.id] = score
    return grades


def _scored(
    measurement: EvalConfig,
    dataset: Dataset,
    system: str,
    completions: Sequence[tuple[Sample, Completion]],
    grades: _Grades,
    progress: Progress,
) -> list[EvalRow]:
    """Score one system's completions."""
    task = measurement.task
    pairs = [(sample, task.read_answer(completion.text, sample.prompt)) for sample, completion in completions]
    by_metric = [metric.score(pairs, measurement.referees, system=system, progress=progress) for metric in task.metrics]
    rows = []
    for index, (sample, completion) in enumerate(completions):
        scores = [score for column in by_metric for score in column[index]]
        if completion.finish == "error":
            reason = f"no answer came: {completion.reason or 'the system gave no reason'}"
            scores = [score.model_copy(update={"value": None, "reason": reason}) for score in scores]
        if grade := grades.get((system, sample.id)):
            scores.append(grade)
        rows.append(
            EvalRow(
                task=task.name,
                adapter_sha256=measurement.adapter_sha256,
                dataset=dataset,
                sample=sample,
                completion=completion,
                answer=pairs[index][1],
                scores=tuple(scores),
            )
        )
    return rows
