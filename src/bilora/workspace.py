"""The public entry point to a project folder: train adapters, evaluate them, judge them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bilora.factories import Factories
from bilora.protocols import ProgressBars, no_bar

if TYPE_CHECKING:
    from bilora.train_tasks import Displays, TrainedAdapter


class Workspace(Factories):
    """The project in the folder `root`, which contains params.yaml; no path depends on the current directory.

    Besides the methods below it has the path of every file of the project (`Layout`) and builds every object that
    params.yaml describes (`Factories`). All methods raise a BiloraError whose sentence says what to do.
    """

    def __init__(self, root: str | Path = ".") -> None:
        """Read nothing yet."""
        super().__init__(Path(root))

    def train(self, task: str) -> TrainedAdapter:
        """Train the adapter of one task, as `bilora train TASK` does; an interrupted run continues.

        Raises:
            UnknownTask, ParamsError: params.yaml has no such task, or is faulty.
            MissingStep: the task's data has not been split yet.
            PreflightFailed: training would not teach what it should.
        """
        return self.train_together([task])[task]

    def train_together(
        self, tasks: Sequence[str], *, displays: Displays | None = None, bars: ProgressBars = no_bar
    ) -> dict[str, TrainedAdapter]:
        """Train the adapters of several tasks on one loaded base, and return them by task.

        Args:
            displays: opens the display of one task's training, given its name and its number of steps.
            bars: show the conversion of the base.

        Raises:
            as `train`.
        """
        for name in tasks:
            self.task(name)  # faults of the params are reported before imports that take seconds
        from bilora.train_tasks import no_display, train_tasks

        return train_tasks(self, tasks, displays or no_display, bars)
