"""The command train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bilora.cli.progress import Bar
    from bilora.feedback.withdrawals import Withdrawals
    from bilora.training.context import Step
    from bilora.training.run import TrainingResult


def train(
    tasks: Annotated[list[str] | None, typer.Argument(help="Tasks of params.yaml.", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="All tasks of params.yaml.")] = False,
    devices: Annotated[
        int,
        typer.Option(
            min=1,
            envvar="BILORA_DEVICES",
            show_envvar=True,
            help="GPUs of this machine to divide each step over; without GPUs, processes.",
        ),
    ] = 1,
) -> None:
    """Train adapters, several together on one base; an interrupted run continues where it stopped.

    The processes that torchrun starts train together, each on one GPU; `--devices` starts them itself.
    """
    from bilora.cli.devices import is_started_rank, join_and_report, start_ranks
    from bilora.cli.progress import bar
    from bilora.workspace import Workspace

    if bool(tasks) == every:
        raise typer.BadParameter("name the tasks to train, or give --all.")
    workspace = Workspace()
    names = list(tasks or workspace.params.tasks)
    if devices > 1 and not is_started_rank():
        for name in names:
            workspace.task(name)
        raise typer.Exit(start_ranks(devices, ["train", *dict.fromkeys(names)]))
    if not join_and_report():
        workspace.train_together(names)
        return
    print(f"train {', '.join(dict.fromkeys(names))}: loading the base", flush=True)
    trained = workspace.train_together(names, displays=_display, bars=partial(bar, unit="tensors"))
    for name, adapter in trained.items():
        _print_result(name, workspace.task(name)[1].headline, adapter.result)
        print(f"train {name}: {workspace.runs / adapter.record.id}")


class _Display:
    """One training's progress bar, with lines above it."""

    def __init__(self, task: str, bar: Bar) -> None:
        self._task, self._bar = task, bar

    def step(self, step: Step) -> None:
        """Count an optimizer step, or print an evaluation."""
        if step.loss is None:
            self._bar.note(f"step {step.step}: validation {step.metric:.3f}, loss {step.validation_loss:.3f}")
            return
        self._bar(1)
        speed = "" if step.tokens_per_s is None else f", {step.tokens_per_s:,.0f} tokens/s"
        self._bar.postfix(f"{step.prefix}loss {step.loss:.3f}{speed}")

    def say(self, text: str) -> None:
        """Print a text; indented lines continue the previous one."""
        self._bar.say(text if text.startswith(" ") else f"train {self._task}: {text}")

    def excluded(self, rows: int, withdrawals: Withdrawals) -> None:
        """Print how many rows are excluded, and which deletions could not be read."""
        from bilora.cli.withdrawals import unread_sentence

        if sentence := unread_sentence(withdrawals):
            self._bar.say(sentence)
        if rows:
            self.say(f"{rows} rows excluded, whose ratings were deleted or withdrawn since the split")

    def nested(self, title: str, total: int) -> AbstractContextManager[Bar]:
        """Show an operation inside the training."""
        return self._bar.nested(title, total)


@contextmanager
def _display(task: str, steps: int) -> Iterator[_Display]:
    """Show one task's training as a progress bar."""
    from bilora.cli.progress import bar

    with bar(f"train {task}", steps, "steps") as steps_bar:
        yield _Display(task, steps_bar)


def _print_result(task: str, headline: str, result: TrainingResult) -> None:
    before = result.base_metric
    for phase in result.phases:
        outcome = phase.result
        print(
            f"train {task}: {phase.kind}: {headline} on validation {before:.3f} → {outcome.metric:.3f} "
            f"({outcome.summary}), {outcome.duration_s:.0f} s"
        )
        before = outcome.metric
    if result.metric <= result.base_metric:
        print(f"train {task}: it is not better than the base on validation; the gate will not pass this adapter.")
