"""The command train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bilora.cli.progress import Bar
    from bilora.data.training_rows import TrainingRows
    from bilora.planning import Planning
    from bilora.records import RunRecord
    from bilora.training.context import OnStep, Step, TrainingContext
    from bilora.training.run import TrainingResult
    from bilora.workspace import Workspace


def train(
    tasks: Annotated[list[str] | None, typer.Argument(help="Tasks of params.yaml.", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="All tasks of params.yaml.")] = False,
) -> None:
    """Train adapters, several together on one base; what was interrupted continues where it stopped."""
    from bilora.cli.engines import prepare_base
    from bilora.library_logs import silence_libraries
    from bilora.tracking.sinks import check_sinks
    from bilora.workspace import Workspace

    if bool(tasks) == every:
        raise typer.BadParameter("name the tasks to train, or give --all.")
    workspace = Workspace(Path())
    names = list(dict.fromkeys(tasks or workspace.params.tasks))
    for name in names:
        workspace.task(name)
    check_sinks(workspace.params.tracking.sinks)
    rows = {name: _read_rows(workspace, name) for name in names}
    print(f"train {', '.join(names)}: loading the base", flush=True)
    silence_libraries()

    # These take seconds to import; what is wrong with the params is reported before.
    from bilora.bases.loading import shared_copy
    from bilora.planning import Planning
    from bilora.training.loading import load_for_training
    from bilora.training.record import collect_metrics
    from bilora.training.together import Together

    prepare_base(workspace)
    loaded = load_for_training(workspace.base())
    planning = Planning(workspace)
    together = Together() if len(names) > 1 else None
    with workspace.sandbox() as sandbox:
        trainings = [
            partial(
                _train,
                workspace,
                planning,
                names,
                name,
                rows[name],
                partial(
                    workspace.training_context,
                    name,
                    rows[name],
                    replace(loaded, model=shared_copy(loaded.model)) if together else loaded,
                    sandbox,
                    together=together,
                ),
            )
            for name in names
        ]
        finished = together.run(trainings) if together else [training() for training in trainings]
    collect_metrics(workspace)
    for name, (result, record) in zip(names, finished, strict=True):
        _print_result(name, workspace.task(name)[1].headline, result)
        print(f"train {name}: {workspace.runs / record.id}")


def _train(
    workspace: Workspace,
    planning: Planning,
    names: list[str],
    task: str,
    rows: TrainingRows,
    make_context: Callable[..., TrainingContext],
) -> tuple[TrainingResult, RunRecord]:
    """Train one task's adapter under a progress bar; `names` are the tasks that the process trains."""
    from bilora.bases.prompt import template_remarks
    from bilora.cli.progress import bar
    from bilora.estimate import in_words
    from bilora.training.record import train_recorded

    chosen = workspace.params.tasks[task]
    with bar(f"train {task}", chosen.training.steps, "steps") as shown:
        context = make_context(on_step=_reporter(shown), bars=shown.nested)
        shown.say(f"train {task}: {context.loaded.mode}, base {context.base.id} at {context.base_revision[:12]}")
        for remark in template_remarks(context.tokenizer):
            shown.say(f"train {task}: {remark}")
        seconds, memory = planning.training(task).seconds, planning.memory_bytes(names)
        shown.say(f"train {task}: planned are {in_words(seconds)} and {memory / 2**30:.1f} GiB")
        return train_recorded(
            context,
            workspace,
            lock_sha256=workspace.lock_sha256(),
            ratings=rows.ratings,
            data_metrics={"feedback_rows": float(rows.feedback_rows)} if chosen.split.feedback else {},
            planned=(seconds, memory),
            on_prepared=lambda lines: shown.say("\n".join(f"  {line}" for line in lines)),
        )


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
