"""Send every sample to every system and score the answers; the verdict is the gate's task."""

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
"""Prefix of the systems that give a task's trivial answers; results.json contains it."""


@dataclass(frozen=True)
class EvalSet:
    """Samples of one dataset, of which every system generates `answers` completions each.

    `decoding` overrides the task's generation settings. If `local_only`, only base and adapter are evaluated.
    """

    samples: Sequence[Sample]
    answers: int = 1
    decoding: Mapping[str, float] = field(default_factory=dict)
    local_only: bool = False

    @property
    def repeated_samples(self) -> list[Sample]:
        """The samples, repeated once per completion."""
        return [*self.samples] * self.answers

    def requests(self, task: Task, generation: Generation, seed: int) -> list[Request]:
        """Return one request per completion; each completion of a sample has another seed."""
        generation = generation.model_copy(update=self.decoding)
        return [
            request for turn in range(self.answers) for request in task.requests(self.samples, generation, seed + turn)
        ]

    def select(self, task: str, engines: Mapping[str, Engine]) -> dict[str, Engine]:
        """Return the `engines` to evaluate, by system."""
        return {name: engine for name, engine in engines.items() if not self.local_only or name in ("base", task)}


def eval_sets(
    task: Task, test: Sequence[Sample], curated: Sequence[Sample], settings: Benchmark
) -> dict[Dataset, EvalSet]:
    """Return the evaluation sets of one task by dataset, without guards."""
    sets: dict[Dataset, EvalSet] = {"test": EvalSet(test), "curated": EvalSet(curated)}
    if task.hide_tests and settings.hidden_tests:
        sets["hidden"] = EvalSet([task.hide_tests(sample) for sample in test[: settings.hidden_tests]])
    if (sampling := settings.pass_at_k) and task.execution_metric:
        sets["sampled"] = EvalSet(test[: sampling.samples], sampling.answers, {"temperature": sampling.temperature})
    return sets


def guard_eval_set(guard: Guard, samples: Sequence[Sample]) -> EvalSet:
    """Return the evaluation set of a guard, for base and adapter only."""
    return EvalSet(samples, decoding=guard.decoding, local_only=True)


@dataclass(frozen=True)
class EvalConfig:
    """What is evaluated and how: one task's adapter, its sha256, the task's decoding, and sandbox and judge."""

    task: Task
    adapter_sha256: str
    generation: Generation
    seed: int
    referees: Referees


def evaluate(
    config: EvalConfig,
    datasets: Mapping[Dataset, EvalSet],
    engines: Mapping[str, Engine],
    *,
    progress: Progress = no_progress,
    bars: ProgressBars = no_bar,
) -> list[EvalRow]:
    """Return one row per system and sample, systems in the order of `engines`, then the task's trivial answers.

    The judge rates the curated dataset only, since its calls cost money.

    Args:
        datasets: see `eval_sets`.
        engines: the engine of each system.
        progress: called with the number of completions just generated.
        bars: progress bars of the scoring.
    """
    task, judge = config.task, config.referees.judge
    rows: list[EvalRow] = []
    by_dataset = _completions(config, datasets, engines, progress)
    for dataset, eval_set in datasets.items():
        samples = eval_set.repeated_samples
        completions = by_dataset[dataset] | {
            TRIVIAL_PREFIX + name: _trivial_completions(task, name, samples) for name in task.trivial_answers
        }
        ratings = _ratings(task, judge, completions, samples) if judge and dataset == "curated" else {}
        for system, texts in completions.items():
            with bars(f"score {system} on {dataset}", len(samples) * len(task.metrics)) as tick:
                pairs = list(zip(samples, texts, strict=True))
                rows += _score(config, dataset, system, pairs, ratings, tick)
    return rows


def _completions(
    config: EvalConfig, datasets: Mapping[Dataset, EvalSet], engines: Mapping[str, Engine], progress: Progress
) -> dict[Dataset, dict[str, list[Completion]]]:
    """Generate all completions of a system in one call, so that datasets share batches where they meet."""
    task, completions = config.task, {dataset: dict[str, list[Completion]]() for dataset in datasets}
    for system, engine in engines.items():
        requests = {
            dataset: eval_set.requests(task, config.generation, config.seed)
            for dataset, eval_set in datasets.items()
            if system in eval_set.select(task.name, engines)
        }
        generated = iter(engine.generate(system, list(chain(*requests.values())), progress=progress))
        for dataset, dataset_requests in requests.items():
            completions[dataset][system] = list(islice(generated, len(dataset_requests)))
    return completions


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


_Ratings = Mapping[tuple[str, str], Score]
"""The judge's scores by system and sample id."""


def _ratings(
    task: Task, judge: Judge, completions: Mapping[str, Sequence[Completion]], samples: Sequence[Sample]
) -> _Ratings:
    """Let the judge rate the answers of all systems to each sample, one call per sample."""
    ratings: dict[tuple[str, str], Score] = {}
    for index, sample in enumerate(samples):
        answers = {
            system: task.read_answer(by_sample[index].text, sample.prompt)
            for system, by_sample in completions.items()
            if not system.startswith(TRIVIAL_PREFIX) and by_sample[index].finish != "error"
        }
        for system, score in judge.rate(sample, answers).items() if answers else ():
            ratings[system, sample.id] = score
    return ratings


def _score(
    config: EvalConfig,
    dataset: Dataset,
    system: str,
    completions: Sequence[tuple[Sample, Completion]],
    ratings: _Ratings,
    progress: Progress,
) -> list[EvalRow]:
    """Score one system's completions on one dataset."""
    task = config.task
    pairs = [(sample, task.read_answer(completion.text, sample.prompt)) for sample, completion in completions]
    by_metric = [metric.score(pairs, config.referees, system=system, progress=progress) for metric in task.metrics]
    rows = []
    for index, (sample, completion) in enumerate(completions):
        scores = [score for column in by_metric for score in column[index]]
        if completion.finish == "error":
            reason = f"no answer: {completion.reason or 'the system gave no reason'}"
            scores = [score.model_copy(update={"value": None, "reason": reason}) for score in scores]
        if rating := ratings.get((system, sample.id)):
            scores.append(rating)
        rows.append(
            EvalRow(
                task=task.name,
                adapter_sha256=config.adapter_sha256,
                dataset=dataset,
                sample=sample,
                completion=completion,
                answer=pairs[index][1],
                scores=tuple(scores),
            )
        )
    return rows
