"""A progress bar of the validation loss."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from transformers import TrainerCallback

from bilora.protocols import Progress, ProgressBars

if TYPE_CHECKING:
    from torch.utils.data import DataLoader


class ValidationLossBar(TrainerCallback):
    """Shows a progress bar for each computation of the validation loss."""

    def __init__(self, bars: ProgressBars, task: str) -> None:
        self._bars = bars
        self._title = f"validation loss of {task}"
        self._open = ExitStack()
        self._tick: Progress | None = None
        self._remaining = 0

    def on_prediction_step(
        self, args: object, state: object, control: object, *, eval_dataloader: DataLoader[object], **_: object
    ) -> None:
        """Count a batch."""
        if self._tick is None:
            self._remaining = len(eval_dataloader)
            self._tick = self._open.enter_context(self._bars(self._title, self._remaining))
        self._tick(1)
        self._remaining -= 1
        if not self._remaining:
            self._open.close()
            self._tick = None
