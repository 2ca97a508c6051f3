"""Which requests an evaluation sends, to which systems, and how often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from support.fakes import FakeEngine
from support.recorded_bars import RecordedBars

from bilora.evaluation.run import EvalConfig, eval_sets, evaluate, guard_eval_set
from bilora.guards.guard import Guard
from bilora.params import Benchmark, Generation, PassAtK
from bilora.protocols import ProgressBars, Referees, no_bar
from bilora.records import EvalRow, Sample, Scale
from bilora.requests import Request
from bilora.sandbox import ProcessSandbox
from bilora.tasks.codegen import TASK as CODEGEN
from bilora.tasks.docstring import TASK as DOCSTRING
from bilora.tasks.task import Task

GENERATION = Generation(max_new_tokens=8, batch_size=4)
SETTINGS = Benchmark(
    samples=5, min_samples=1, hidden_tests=2, pass_at_k=PassAtK(samples=3, answers=2, temperature=0.7, k=[1, 2])
)


def questions(sample: Callable[..., Sample]) -> list[Sample]:
    samples = [sample("codegen", number) for number in range(5)]
    return [
        Sample.create(
            **original.model_dump(exclude={"id", "prompt"}), prompt=f"{original.prompt}\nMust pass: {original.tests[0]}"
        )
        for original in samples
    ]


def evaluated(sample: Callable[..., Sample], bars: ProgressBars = no_bar) -> tuple[list[EvalRow], list[Request]]:
    test, engine = questions(sample), FakeEngine("def add(items):\n    return [item + 1 for item in items]")
    with ProcessSandbox(workers=1) as sandbox:
        rows = evaluate(
            EvalConfig(CODEGEN, "a" * 64, GENERATION, 7, Referees(sandbox=sandbox)),
            eval_sets(CODEGEN, test, test[:1], SETTINGS),
            {"base": engine},
            bars=bars,
        )
    return rows, [request for _, request in engine.requests]


def test_every_evaluation_set_is_sent_as_often_as_params_say(sample: Callable[..., Sample]) -> None:
    rows, requests = evaluated(sample)
    counts = {name: sum(row.dataset == name for row in rows) for name in ("test", "curated", "hidden", "sampled")}
    assert counts == {"test": 5, "curated": 1, "hidden": 2, "sampled": 6}
    assert len(requests) == 14


def test_scoring_has_a_bar_per_system_and_dataset(sample: Callable[..., Sample]) -> None:
    bars = RecordedBars()
    rows, _ = evaluated(sample, bars)
    systems = list(dict.fromkeys(row.completion.system for row in rows))
    counts = {"test": 5, "curated": 1, "hidden": 2, "sampled": 6}
    assert bars.recorded == [
        (f"score {system} on {name}", count, count, True) for name, count in counts.items() for system in systems
    ]


def test_hidden_means_that_no_prompt_shows_a_test_and_all_are_run(sample: Callable[..., Sample]) -> None:
    rows, requests = evaluated(sample)
    hidden = [row for row in rows if row.dataset == "hidden"]
    assert not any("assert" in row.sample.prompt for row in hidden)
    assert [row.sample.tests for row in hidden] == [question.tests for question in questions(sample)[:2]]
    assert not any("assert" in message.content for request in requests[6:8] for message in request.messages)


def test_further_answers_are_drawn_with_seeds_of_their_own(sample: Callable[..., Sample]) -> None:
    _, requests = evaluated(sample)
    assert {(request.sampling.temperature, request.sampling.seed) for request in requests[:8]} == {(0.0, 7)}
    assert [(request.sampling.temperature, request.sampling.seed) for request in requests[8:]] == [(0.7, 7)] * 3 + [
        (0.7, 8)
    ] * 3


def test_a_guard_is_decoded_greedily_by_base_and_adapter_alone(sample: Callable[..., Sample]) -> None:
    guard = Guard(title="Public", task="codegen", size=2, rows=list, max_new_tokens=300)
    engines = {name: FakeEngine("def add(items):\n    return items") for name in ("base", "codegen", "remote")}
    warm = GENERATION.model_copy(update={"temperature": 0.9, "frequency_penalty": 0.5})
    questions = {"guard:public": guard_eval_set(guard, [sample("codegen", number) for number in range(2)])}
    with ProcessSandbox(workers=1) as sandbox:
        rows = evaluate(EvalConfig(CODEGEN, "a" * 64, warm, 7, Referees(sandbox=sandbox)), questions, engines)
    assert {(row.dataset, row.completion.system) for row in rows} == {
        ("guard:public", "base"),
        ("guard:public", "codegen"),
    }
    (sampling,) = {request.sampling for name in ("base", "codegen") for _, request in engines[name].requests}
    assert (sampling.max_tokens, sampling.temperature, sampling.frequency_penalty) == (300, 0.0, 0.0)


def test_a_task_whose_answers_are_not_run_is_evaluated_once(
    sample: Callable[..., Sample], measured_by: Callable[..., Task]
) -> None:
    test = [sample("docstring", number, tests=()) for number in range(5)]
    assert list(eval_sets(DOCSTRING, test, [], SETTINGS)) == ["test", "curated"]
    runs = measured_by({"compiles": Scale(label="compiles")}, runs_answers=True)
    assert list(eval_sets(runs, test, [], SETTINGS)) == ["test", "curated", "sampled"]
    assert list(eval_sets(replace(CODEGEN, hide_tests=None), test, [], SETTINGS)) == ["test", "curated", "sampled"]
