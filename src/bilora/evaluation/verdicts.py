"""Turn scored rows into results with a verdict per task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bilora.evaluation.evidence import GateInput, GateSettings
from bilora.evaluation.gate import gate
from bilora.evaluation.notes import answer_notes
from bilora.evaluation.results import TaskRun, build_results, comparability_key, guard_conditions
from bilora.evaluation.summary import Summarizer
from bilora.guards import task_guards
from bilora.metrics.judged import JUDGE_METRIC
from bilora.params import Params
from bilora.records import Dataset, EvalRow, Sample, guard_dataset
from bilora.results import Baseline, Results
from bilora.tasks import load_task


@dataclass(frozen=True)
class RunContext:
    """What a benchmark run needs beside the rows.

    Attributes:
        adapters: sha256 of each task's current adapter.
        baseline: the promoted adapters.
        skipped_endpoints: endpoints that cannot be used, with the reason.
        no_judge_reason: why there is no judge; empty if there is one.
        judge_remarks: see the function `judge_remarks`.
    """

    adapters: Mapping[str, str]
    baseline: Baseline = field(default_factory=Baseline)
    skipped_endpoints: Mapping[str, str] = field(default_factory=dict)
    no_judge_reason: str = ""
    judge_remarks: Sequence[str] = ()


def gate_rows(params: Params, rows: Mapping[str, Sequence[EvalRow]], context: RunContext) -> Results:
    """Summarize scored rows, with the gate's verdict on each task's adapter.

    Args:
        rows: by task, for every task of `params`.
    """
    all_rows = [row for task_rows in rows.values() for row in task_rows]
    judged = any(score.metric == JUDGE_METRIC for row in all_rows for score in row.scores)
    # An endpoint whose key has been removed since the evaluation has rows and was not skipped.
    answered = {row.completion.system for row in all_rows}
    skipped = {name: reason for name, reason in context.skipped_endpoints.items() if name not in answered}
    return build_results(
        [_task_run(params, name, rows[name], context) for name in params.tasks],
        Summarizer(
            seed=params.seed,
            draws=params.benchmark.draws,
            k=params.benchmark.pass_at_k.k if params.benchmark.pass_at_k else (),
        ),
        profile=params.profile,
        not_run={JUDGE_METRIC: context.no_judge_reason} if context.no_judge_reason and not judged else {},
        notes=skipped | answer_notes(all_rows),
        judge=context.judge_remarks if judged else (),
    )


def gate_settings(params: Params, task: str) -> GateSettings:
    """Return the gate's settings for a task; without an entry in params.yaml the margin is 0."""
    return GateSettings(
        margin=params.tasks[task].margin if task in params.tasks else 0.0,
        min_samples=params.benchmark.min_samples,
        seed=params.seed,
        draws=params.benchmark.draws,
    )


def _task_run(params: Params, name: str, rows: Sequence[EvalRow], context: RunContext) -> TaskRun:
    task, adapter_sha256 = load_task(name), context.adapters[name]
    guards = task_guards(params, name)
    key = comparability_key(
        task,
        _samples(rows, "test"),
        decoding=params.tasks[name].generation.model_dump(),
        judge=params.judge.model if params.judge else None,
        isolation=_isolation(rows),
        guards={
            guard_name: guard_conditions(task, guard, _samples(rows, guard_dataset(guard_name)))
            for guard_name, guard in guards.items()
        },
    )
    inputs = GateInput(
        task=name,
        metrics=task.metric_names,
        rows=rows,
        adapter_sha256=adapter_sha256,
        key=key,
        incumbents=context.baseline.tasks.get(name),
        expected_metrics=(JUDGE_METRIC,) if params.judge and not context.no_judge_reason else (),
        guards={guard_name: guard.size for guard_name, guard in guards.items()},
        scales=task.scales,
    )
    return TaskRun(task, rows, key, adapter_sha256, gate(inputs, gate_settings(params, name)), guards)


def _samples(rows: Sequence[EvalRow], dataset: Dataset) -> list[Sample]:
    """Return the distinct samples of a dataset."""
    return list({row.sample.id: row.sample for row in rows if row.dataset == dataset}.values())


def _isolation(rows: Sequence[EvalRow]) -> str:
    # Only the level: the layers that a machine adds do not change an honest program's outcome.
    levels = {score.evidence.get("isolation", "").partition(":")[0] for row in rows for score in row.scores}
    return ", ".join(sorted(level for level in levels if level))
