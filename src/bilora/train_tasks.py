"""Train the adapters of one or more tasks of a workspace on one loaded base, and record the runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from bilora.bases.loading import shared_copy
from bilora.bases.prompt import template_remarks
from bilora.data.training_rows import TrainingRows, read_training_rows
from bilora.estimate import format_duration
from bilora.factories import Factories
from bilora.feedback.withdrawals import Withdrawals, read_withdrawals
from bilora.library_logs import silence_libraries
from bilora.planning import Planner
from bilora.protocols import ProgressBars, no_bar
from bilora.records import RunRecord
from bilora.tracking.sinks import check_sinks
from bilora.training import ranks
from bilora.training.context import Step
from bilora.training.joint_training import JointTraining
from bilora.training.loading import load_for_training
from bilora.training.record import collect_metrics, train_and_record
from bilora.training.run import TrainingResult


class TrainingDisplay(Protocol):
    """Shows one training while it runs."""

    def step(self, step: Step) -> None:
        """Show an optimizer step or an evaluation."""

    def say(self, text: str) -> None:
        """Show a line of text."""

    def excluded(self, rows: int, withdrawals: Withdrawals) -> None:
        """Show how many rows are not trained on because their ratings were withdrawn after the split."""

    def nested(self, title: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show the progress of an operation inside the training, such as validation."""
        ...


Displays = Callable[[str, int], AbstractContextManager[TrainingDisplay]]
"""Opens the display of one task's training, given the task's name and the number of optimizer steps."""


class _NoDisplay:
    """Shows nothing."""

    nested = staticmethod(no_bar)

    def step(self, step: Step) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def excluded(self, rows: int, withdrawals: Withdrawals) -> None:
        pass


@contextmanager
def no_display(_task: str, _steps: int) -> Iterator[TrainingDisplay]:
    """Show nothing."""
    yield _NoDisplay()


@dataclass(frozen=True)
class TrainedAdapter:
    """A trained adapter.

    Attributes:
        folder: of the adapter, in PEFT's format.
        record: what the run was made from and what it measured; also in `runs/`.
        result: what each phase measured on the validation set.
    """

    folder: Path
    record: RunRecord
    result: TrainingResult


@dataclass(frozen=True)
class _Rows:
    """The rows of one task, without those of ratings that were deleted or withdrawn since the split."""

    trained: TrainingRows
    metrics: Mapping[str, float]
    excluded: int
    withdrawals: Withdrawals | None

    @classmethod
    def read(cls, workspace: Factories, task: str) -> _Rows:
        """Read the rows of a task; the outbox is read only if ratings are among them."""
        split = workspace.params.tasks[task].split
        rows = read_training_rows(workspace, task, split.preference)
        withdrawals = read_withdrawals(workspace.outbox) if rows.ratings else None
        trained = rows.without(withdrawals.ratings) if withdrawals else rows
        metrics = {"feedback_rows": float(trained.feedback_rows)} if split.feedback else {}
        return cls(trained, metrics, trained.fewer_than(rows), withdrawals)

    def show_excluded(self, display: TrainingDisplay) -> None:
        """Show what was excluded, if there was anything to exclude."""
        if self.withdrawals:
            display.excluded(self.excluded, self.withdrawals)


def _plan_sentence(planned: tuple[float, int] | None) -> str:
    """Return the predicted time and memory, or the number of devices, for which there is no prediction."""
    if planned is None:
        return f"{ranks.world_size()} devices"
    seconds, memory = planned
    return f"planned are {format_duration(seconds)} and {memory / 2**30:.1f} GiB"


def train_tasks(
    workspace: Factories, tasks: Sequence[str], displays: Displays, bars: ProgressBars
) -> dict[str, TrainedAdapter]:
    """Train the adapters of these tasks together; see `Workspace.train_together`."""
    # 1) Read what each task is trained on, before anything large is loaded.
    check_sinks(workspace.params.tracking.sinks)
    rows = {name: _Rows.read(workspace, name) for name in dict.fromkeys(tasks)}
    # 2) Load the base once; the models of all tasks share its weights.
    silence_libraries()
    base = workspace.base()
    if ranks.is_first():
        base.prepare(bars)
    ranks.broadcast(None)  # the others wait until it is converted
    loaded = load_for_training(base)
    # 3) Train.
    planner, joint = Planner(workspace), JointTraining() if len(rows) > 1 else None
    alone = rows if ranks.world_size() == 1 else ()  # the plan is for one device
    planned = {name: (planner.training(name).seconds, planner.memory_bytes(tuple(rows))) for name in alone}

    def train(name: str) -> TrainedAdapter:
        copy = replace(loaded, model=shared_copy(loaded.model)) if joint else loaded
        with displays(name, workspace.params.tasks[name].training.steps) as display:
            rows[name].show_excluded(display)
            context = workspace.training_context(
                name,
                rows[name].trained,
                copy,
                sandbox,
                on_step=display.step,
                bars=display.nested,
                joint=joint,
            )
            display.say(f"{loaded.mode}, base {base.id} at {context.base_revision[:12]}")
            for remark in template_remarks(context.tokenizer):
                display.say(remark)
            display.say(_plan_sentence(planned.get(name)))
            result, record = train_and_record(
                context,
                workspace,
                lock_sha256=workspace.lock_sha256(),
                ratings=rows[name].trained.ratings,
                data_metrics=rows[name].metrics,
                planned=planned.get(name),
                on_prepared=lambda lines: display.say("\n".join(f"  {line}" for line in lines)),
            )
        return TrainedAdapter(workspace.adapter(name), record, result)

    with workspace.sandbox() as sandbox:
        trainings = [partial(train, name) for name in rows]
        trained = joint.run(trainings) if joint else [run() for run in trainings]
    if ranks.is_first():
        collect_metrics(workspace)
    return dict(zip(rows, trained, strict=True))
