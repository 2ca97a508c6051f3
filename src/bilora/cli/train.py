"""The verb train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bilora.cli.data import TaskName

if TYPE_CHECKING:
    from bilora.cli.progress import Bar
    from bilora.data.training_rows import TrainingRows
    from bilora.training.context import OnStep, Step
    from bilora.training.run import TrainingResult
    from bilora.workspace import Workspace


def train(task: TaskName) -> None:
    """Train one task's adapter, or continue where an interrupted run stopped."""
    from bilora.cli.engines import prepare_base
    from bilora.cli.progress import bar
    from bilora.library_logs import silence_libraries
    from bilora.tracking.sinks import check_sinks
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    chosen, task_type = workspace.task(task)
    check_sinks(workspace.params.tracking.sinks)
    rows = _read_rows(workspace, task)
    print(f"train {task}: loading the base", flush=True)
    silence_libraries()

    # These take seconds to import; what is wrong with the params is reported before.
    from bilora.bases.prompt import template_remarks
    from bilora.training.record import collect_metrics, train_recorded

    prepare_base(workspace)
    with (
        bar(f"train {task}", chosen.training.steps, "steps") as shown,
        workspace.training_context(task, rows, on_step=_reporter(shown), bars=shown.nested) as context,
    ):
        shown.say(f"train {task}: {context.loaded.mode}, base {context.base.id} at {context.base_revision[:12]}")
        for remark in template_remarks(context.tokenizer):
            shown.say(f"train {task}: {remark}")
        result, record = train_recorded(
            context,
            workspace,
            lock_sha256=workspace.lock_sha256(),
            ratings=rows.ratings,
            data_metrics={"feedback_rows": float(rows.feedback_rows)} if chosen.split.feedback else {},
            on_prepared=lambda lines: shown.say("\n".join(f"  {line}" for line in lines)),
        )
    collect_metrics(workspace)
    _print_result(task, task_type.headline, result)
    print(f"train {task}: {workspace.runs / record.id}")


def _read_rows(workspace: Workspace, task: str) -> TrainingRows:
    """Read the rows to train on; leave out those of ratings that were deleted or withdrawn since the split."""
    from bilora.cli.withdrawals import print_unread
    from bilora.data.training_rows import read_training_rows
    from bilora.feedback.withdrawals import read_withdrawals

    rows = read_training_rows(workspace, task, workspace.params.tasks[task].split.preference)
    if not rows.ratings:
        return rows
    withdrawals = read_withdrawals(workspace.outbox)
    kept = rows.without(withdrawals.ratings)
    print_unread(withdrawals)
    if left_out := kept.fewer_than(rows):
        print(f"train {task}: {left_out} rows left out, whose ratings were deleted or withdrawn since the split")
    return kept


def _print_result(task: str, headline: str, result: TrainingResult) -> None:
    before = result.base_metric
    for phase in result.phases:
        done = phase.result
        print(
            f"train {task}: {phase.kind}: {headline} on validation {before:.3f} → {done.metric:.3f} "
            f"({done.summary}), {done.duration_s:.0f} s"
        )
        before = done.metric
    if result.metric <= result.base_metric:
        print(f"train {task}: it does not beat the base on validation; the gate will not let this adapter ship.")


def _reporter(shown: Bar) -> OnStep:
    def report(step: Step) -> None:
        if step.loss is None:
            shown.note(f"step {step.step}: validation {step.metric:.3f}, loss {step.validation_loss:.3f}")
            return
        shown(1)
        speed = "" if step.tokens_per_s is None else f", {step.tokens_per_s:,.0f} tokens/s"
        shown.postfix(f"{step.prefix}loss {step.loss:.3f}{speed}")

    return report
