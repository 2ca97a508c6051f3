"""From scored rows to results with a verdict per task."""

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
    """What the rows do not say of a benchmark run.

    Attributes:
        adapters: sha256 of each task's adapter as it is now.
        baseline: the promoted adapters.
        left_out: endpoints that cannot be used, with the reason.
        no_judge: why there is no judge; empty if there is one.
        judge_remarks: what must be known to read the judge's grades.
    """

    adapters: Mapping[str, str]
    baseline: Baseline = field(default_factory=Baseline)
    left_out: Mapping[str, str] = field(default_factory=dict)
    no_judge: str = ""
    judge_remarks: Sequence[str] = ()


def gate_rows(params: Params, rows: Mapping[str, Sequence[EvalRow]], circumstances: RunContext) -> Results:
    """Summarize scored rows, and let the gate judge each task's adapter.

    Args:
        rows: by task, for every task of `params`.
    """
    everything = [row for found in rows.values() for row in found]
    judged = any(score.metric == JUDGE_METRIC for row in everything for score in row.scores)
    # A key may have been there when the answers were made and be gone by now: the rows know.
    answered = {row.completion.system for row in everything}
    left_out = {name: reason for name, reason in circumstances.left_out.items() if name not in answered}
    return build_results(
        [_judged_run(params, name, rows[name], circumstances) for name in params.tasks],
        Summarizer(
            seed=params.seed,
            draws=params.benchmark.draws,
            k=params.benchmark.pass_at_k.k if params.benchmark.pass_at_k else (),
        ),
        profile=params.profile,
        not_run={JUDGE_METRIC: circumstances.no_judge} if circumstances.no_judge and not judged else {},
        notes=left_out | answer_notes(everything),
        judge=circumstances.judge_remarks if judged else (),
    )


def gate_settings(params: Params, task: str) -> GateSettings:
    """Return how strict the gate is with a task; one that params do not name has no margin."""
    return GateSettings(
        margin=params.tasks[task].margin if task in params.tasks else 0.0,
        min_samples=params.benchmark.min_samples,
        seed=params.seed,
        draws=params.benchmark.draws,
    )


def _judged_run(params: Params, name: str, rows: Sequence[EvalRow], circumstances: RunContext) -> TaskRun:
    task, adapter_sha256 = load_task(name), circumstances.adapters[name]
    guards = task_guards(params, name)
    key = comparability_key(
        task,
        _samples(rows, "test"),
        decoding=params.tasks[name].generation.model_dump(),
        judge=params.judge.model if params.judge else None,
        isolation=_isolation(rows),
        guards={
            one: guard_conditions(task, guard, _samples(rows, guard_dataset(one))) for one, guard in guards.items()
        },
    )
    given = GateInput(
        task=name,
        metrics=task.metric_names,
        rows=rows,
        adapter_sha256=adapter_sha256,
        key=key,
        incumbents=circumstances.baseline.tasks.get(name),
        expected_metrics=(JUDGE_METRIC,) if params.judge and not circumstances.no_judge else (),
        guards={one: guard.size for one, guard in guards.items()},
        scales=task.scales,
    )
    return TaskRun(task, rows, key, adapter_sha256, gate(given, gate_settings(params, name)), guards)


def _samples(rows: Sequence[EvalRow], dataset: Dataset) -> list[Sample]:
    """Return the samples of a dataset, each once."""
    return list({row.sample.id: row.sample for row in rows if row.dataset == dataset}.values())


def _isolation(rows: Sequence[EvalRow]) -> str:
    # The level alone: which further layers a machine offers changes no honest program's outcome.
    found = {score.evidence.get("isolation", "").partition(":")[0] for row in rows for score in row.scores}
    return ", ".join(sorted(level for level in found if level))
