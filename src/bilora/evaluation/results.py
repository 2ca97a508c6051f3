"""Build `Results` from scored rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bilora.evaluation.baseline import baseline_entry
from bilora.evaluation.derived import FORM_SHARES, derived_scales, has_sandbox_outcome, pass_at_k_name
from bilora.evaluation.summary import Summarizer, dataset_order
from bilora.guards.guard import Guard
from bilora.metrics.functional import OUTCOME_SHARES
from bilora.metrics.judged import JUDGE_METRIC, JUDGE_SCALE
from bilora.records import EvalRow, Sample, Scale, guard_dataset
from bilora.results import AnswerRow, AnswerScore, GuardFacts, Results, TaskResults, Verdict
from bilora.storage import sha256_json
from bilora.tasks.task import Task

HARNESS = "1"
"""Increased whenever equal answers would score differently; older baselines then become incomparable."""


def comparability_key(
    task: Task,
    samples: Iterable[Sample],
    *,
    decoding: Mapping[str, object],
    judge: str | None,
    isolation: str,
    guards: Mapping[str, Sequence[object]] | None = None,
) -> str:
    """Return the hash of everything that must be equal in two comparable runs.

    Args:
        task: its chat is part of the key.
        samples: the test samples, in any order.
        decoding: the generation settings.
        judge: the judge's id, or None.
        isolation: the sandbox's isolation level.
        guards: each guard's `guard_conditions`. Without guards the key is the same as before guards existed.
    """
    return sha256_json(
        {
            "task": task.name,
            "data": sha256_json(_questions(task, samples)),
            "decoding": dict(decoding),
            "harness": HARNESS,
            "judge": judge,
            "isolation": isolation,
            **({"guards": dict(guards)} if guards else {}),
        }
    )


def guard_conditions(task: Task, guard: Guard, samples: Iterable[Sample]) -> list[object]:
    """Return what must be equal on a guard in two comparable runs: its samples and its decoding."""
    return [sha256_json(_questions(task, samples)), dict(guard.decoding)]


def _questions(task: Task, samples: Iterable[Sample]) -> list[tuple[object, ...]]:
    """Return, sorted, everything that determines each sample's prompt and scores."""
    return sorted(
        (
            sample.id,
            sample.target,
            list(sample.tests),
            sample.setup,
            [(message.role, message.content) for message in task.messages(sample.prompt)],
        )
        for sample in samples
    )


@dataclass(frozen=True)
class TaskRun:
    """One task's scored rows with their comparability key, their adapter, their guards, and the gate's verdict."""

    task: Task
    rows: Sequence[EvalRow] = ()
    key: str = ""
    adapter_sha256: str = ""
    verdict: Verdict | None = None
    guards: Mapping[str, Guard] = field(default_factory=dict)


def build_results(
    runs: Sequence[TaskRun],
    summarizer: Summarizer,
    *,
    profile: str,
    not_run: Mapping[str, str] | None = None,
    notes: Mapping[str, str] | None = None,
    judge: Sequence[str] = (),
) -> Results:
    """Return the results of one benchmark run.

    Args:
        runs: the profile's tasks; a task without rows is reported as not run.
        not_run: metrics that were not run at all, with the reason ("no judge is configured").
        notes: remarks on systems, such as an endpoint that did not answer.
        judge: remarks on the judge, such as the result of the last judge check.
    """
    return Results(
        profile=profile,
        harness=HARNESS,
        seed=summarizer.seed,
        notes=dict(notes or {}),
        judge=tuple(judge),
        latency_s=summarizer.pooled_latency({run.task.name: run.rows for run in runs}),
        tasks={
            run.task.name: _task_results(run, dict(not_run or {}), summarizer)
            for run in sorted(runs, key=lambda run: run.task.name)
        },
    )


def _task_results(run: TaskRun, not_run: dict[str, str], summarizer: Summarizer) -> TaskResults:
    task, rows = run.task, run.rows
    scored = sorted({score.metric for row in rows for score in row.scores})
    summary = {
        dataset: summarizer.dataset(task, dataset, selected, list(dict.fromkeys([*task.metric_names, *scored])))
        for dataset in dataset_order(row.dataset for row in rows)
        if (selected := [row for row in rows if row.dataset == dataset])
    }
    derived = [pass_at_k_name(k) for k in summarizer.k if "sampled" in summary]
    derived += [name for name in FORM_SHARES if "test" in summary]
    derived += [name for name in OUTCOME_SHARES if any(map(has_sandbox_outcome, rows))]
    metrics = tuple(dict.fromkeys([*task.metric_names, *scored, *derived, *not_run]))
    scales = {**derived_scales(summarizer.k), JUDGE_METRIC: JUDGE_SCALE, **task.scales}
    return TaskResults(
        title=task.title,
        headline=task.headline,
        metrics=metrics,
        scales={name: scales.get(name) or Scale(label=name.replace("_", " ")) for name in metrics},
        not_run=not_run,
        key=run.key,
        adapter_sha256=run.adapter_sha256,
        verdict=run.verdict,
        entry=baseline_entry(task.name, task.metric_names, rows, adapter_sha256=run.adapter_sha256, key=run.key),
        summary=summary,
        samples={row.sample.id: row.sample for row in rows},
        rows=tuple(map(_answer_row, rows)),
        guards={name: facts for name, guard in run.guards.items() if (facts := _guard_facts(run, name, guard))},
    )


def _guard_facts(run: TaskRun, name: str, guard: Guard) -> GuardFacts | None:
    """Return the facts on a guard, with its first answered sample as the example; None if no sample was answered."""
    first = next((row.sample for row in run.rows if row.dataset == guard_dataset(name)), None)
    if first is None:
        return None
    return GuardFacts(title=guard.title, prompt=run.task.messages(first.prompt), decoding=dict(guard.decoding))


def _answer_row(row: EvalRow) -> AnswerRow:
    return AnswerRow(
        **row.completion.model_dump(),
        dataset=row.dataset,
        answer=row.answer,
        scores={
            score.metric: AnswerScore(value=score.value, reason=score.reason, evidence=score.evidence)
            for score in row.scores
        },
    )
