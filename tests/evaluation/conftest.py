"""A small benchmark run: codegen (pass or fail), docstring (graded), and an unknown task."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest

from bilora.evaluation.evidence import GateInput, GateSettings
from bilora.evaluation.gate import gate
from bilora.evaluation.results import TaskRun, build_results
from bilora.evaluation.summary import Summarizer
from bilora.protocols import Progress, Referees, no_progress
from bilora.records import Completion, Dataset, Drop, EvalRow, Sample, Scale, Score
from bilora.results import Results
from bilora.tasks.task import Task

SHA = "a" * 64


@dataclass(frozen=True)
class Named:
    """A metric that is only its numbers' scales; the rows of these tests are scored already."""

    scales: Mapping[str, Scale]
    runs_answers: bool = False

    def score(
        self,
        pairs: Sequence[tuple[Sample, str]],
        referees: Referees,
        *,
        system: str,
        progress: Progress = no_progress,
    ) -> list[tuple[Score, ...]]:
        raise AssertionError("rows are scored already")


LABELS = {"pass_at_1": "pass@1", "test_pass_rate": "tests passed", "bleu": "BLEU"}


def make_task(name: str, title: str, *metrics: str) -> Task:
    scales = {metric: Scale(label=LABELS.get(metric, metric)) for metric in metrics}
    return Task(
        name=name,
        title=title,
        system=f"You do {name}.",
        sample=lambda row: Drop(rule="unused"),
        answer=str,
        extract=str,
        metrics=(Named(scales, runs_answers="pass_at_1" in scales),),
        example="?",
    )


TASKS = {
    "codegen": make_task("codegen", "Write code", "pass_at_1", "test_pass_rate"),
    "docstring": make_task("docstring", "Explain code", "bleu"),
    "haiku": make_task("haiku", "Write haiku", "syllables"),
}


def make_sample(task: str, number: int, **overrides: Any) -> Sample:
    fields: dict[str, Any] = {
        "prompt": f"Write a function that adds {number} to every item of a list.",
        "target": f"def add(items):\n    return [item + {number} for item in items]",
        "tests": (f"assert add([1]) == [{number + 1}]",),
        "source": "exercises" if task == "codegen" else "installed",
        "group": f"group-{number // 2}",
        "licence": "MIT",
        "tier": ("one", "two", "three")[number % 3] if task == "codegen" else "",
    }
    return Sample.create(task=task, **(fields | overrides))


def make_row(
    sample: Sample,
    system: str,
    scores: dict[str, float | None],
    *,
    dataset: Dataset = "test",
    text: str = "def add(items):\n    return items",
    reason: str = "",
    latency_s: float = 0.5,
    evidence: dict[str, str] | None = None,
    finish: Literal["stop", "length", "error"] = "stop",
    adapter_sha256: str = SHA,
) -> EvalRow:
    trivial = system.startswith("floor:")
    return EvalRow(
        task=sample.task,
        adapter_sha256=adapter_sha256,
        dataset=dataset,
        sample=sample,
        completion=Completion(
            sample_id=sample.id,
            system=system,
            text=text,
            prompt_tokens=0 if trivial else 40,
            output_tokens=0 if trivial else 20,
            latency_s=0.0 if trivial else latency_s,
            finish=finish,
        ),
        answer=text,
        scores=tuple(
            Score(
                sample_id=sample.id,
                system=system,
                metric=metric,
                value=value,
                reason=reason if value != 1.0 else "",
                evidence=evidence or {},
            )
            for metric, value in scores.items()
        ),
    )


def make_pairs(
    task: str,
    metric: str,
    new: Sequence[float | None],
    old: Sequence[float | None],
    **overrides: Any,
) -> list[EvalRow]:
    """Rows of adapter and base; sample i scores new[i] and old[i], each sample its own group."""
    samples = [make_sample(task, number, group=f"g{number}") for number in range(len(new))]
    return [
        make_row(sample, system, {metric: value}, **overrides)
        for system, values in ((task, new), ("base", old))
        for sample, value in zip(samples, values, strict=True)
    ]


def make_rows() -> dict[str, list[EvalRow]]:
    chance = random.Random(7)
    rows: dict[str, list[EvalRow]] = {"codegen": [], "docstring": [], "haiku": []}
    for number in range(60):
        sample = make_sample("codegen", number)
        for system, odds in (("codegen", 0.7), ("base", 0.2), ("remote", 0.8)):
            value = float(chance.random() < odds)
            rows["codegen"].append(
                make_row(
                    sample,
                    system,
                    {"pass_at_1": value, "test_pass_rate": max(value, 0.5)},
                    reason=f"failed: {sample.tests[0]}",
                    latency_s=0.2 + chance.random(),
                )
            )
        sample = make_sample("docstring", number, tests=(), target="Add a number to every item.")
        for system, high in (("docstring", 0.4), ("base", 0.15), ("floor:name", 0.1), ("floor:empty", 0.01)):
            value = round(chance.random() * high, 4)
            rows["docstring"].append(
                make_row(sample, system, {"bleu": value}, text="Add numbers.", latency_s=0.1 + chance.random())
            )
        sample = make_sample("haiku", number, tests=())
        for system, high in (("haiku", 0.8), ("base", 0.8)):
            rows["haiku"].append(make_row(sample, system, {"syllables": round(chance.random() * high, 4)}))
    for number in range(10):
        sample = make_sample("codegen", 1000 + number, source="curated", tier="")
        for system in ("codegen", "base"):
            rows["codegen"].append(make_row(sample, system, {"pass_at_1": float(number % 2)}, dataset="curated"))
    return rows


def make_results(**overrides: Any) -> Results:
    """Build results; `rows` and `verdicts` replace what is measured, everything else has defaults.

    `guards` are by task, `k` is of pass@k.
    """
    rows = overrides.pop("rows", None) or make_rows()
    with_verdicts, k = overrides.pop("verdicts", True), overrides.pop("k", ())
    guards_by_task = overrides.pop("guards", {})
    runs = []
    for name, task in TASKS.items():
        guards = guards_by_task.get(name, {})
        sizes = {guard_name: guard.size for guard_name, guard in guards.items()}
        inputs = GateInput(name, task.metric_names, rows.get(name, []), SHA, f"key-{name}", guards=sizes)
        verdict = gate(inputs, GateSettings(margin=0.05, min_samples=50, seed=1, draws=1000)) if with_verdicts else None
        runs.append(TaskRun(task, inputs.rows, inputs.key, SHA, verdict, guards))
    fields: dict[str, Any] = {
        "profile": "smollm2",
        "not_run": {"judge": "no judge is configured"},
        "notes": {"silent": "did not answer within 60 s"},
    }
    return build_results(runs, Summarizer(seed=1, draws=1000, k=k), **(fields | overrides))


@pytest.fixture
def measured_by() -> Callable[..., Task]:
    """Return the task haiku with one metric that has these scales; `runs_answers` says whether it runs answers."""

    def task(scales: Mapping[str, Scale], *, runs_answers: bool = False) -> Task:
        return replace(TASKS["haiku"], metrics=(Named(scales, runs_answers),))

    return task


@pytest.fixture
def results() -> Results:
    return make_results()


@pytest.fixture
def results_of() -> Callable[..., Results]:
    """Build results with some arguments replaced; `rows` replaces the rows."""
    return make_results


@pytest.fixture
def pairs() -> Callable[..., list[EvalRow]]:
    return make_pairs


@pytest.fixture
def row() -> Callable[..., EvalRow]:
    return make_row


@pytest.fixture
def sample() -> Callable[..., Sample]:
    return make_sample


@pytest.fixture
def benchmark_rows() -> dict[str, list[EvalRow]]:
    return make_rows()
