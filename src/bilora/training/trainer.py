"""TRL's SFTTrainer, taught three things: the task's own metric, whole checkpoints, and plain progress."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import TrainerCallback
from trl import SFTTrainer

COMPLETE = "complete"
"""Name of the file that is written last into a checkpoint."""

Measure = Callable[[Any], float]
"""Scores a model on the validation sample by the task's headline metric, in [0, 1]."""


@dataclass(frozen=True)
class Step:
    """What a watcher is told: one optimiser step of the first or second phase, or one look at the validation set."""

    step: int
    loss: float | None
    tokens_per_s: float | None
    validation_loss: float | None = None
    metric: float | None = None
    preference_loss: float | None = None

    def row(self) -> dict[str, float | int]:
        """Return the fields that are known."""
        return {key: value for key, value in vars(self).items() if value is not None}


Watch = Callable[[Step], None]


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint; remove those that a kill left unfinished."""
    whole = []
    for path in folder.glob("checkpoint-*"):
        if (path / COMPLETE).is_file():
            whole.append(path)
        else:
            shutil.rmtree(path)
    return max(whole, key=lambda path: int(path.name.partition("-")[2]), default=None)


class AdapterTrainer(SFTTrainer):
    """SFTTrainer whose `eval_choice` is the task's metric on generated answers, ties broken by loss."""

    def __init__(self, *, measure: Measure, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._measure = measure
        # TRL casts adapters on quantised bases to 16 bit; small updates vanish there.
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()

    def evaluation_loop(self, *arguments: Any, **options: Any) -> Any:
        """Add `eval_metric` and `eval_choice` before any callback looks at the metrics."""
        output = super().evaluation_loop(*arguments, **options)
        training = self.model.training
        self.model.eval()
        metric = self._measure(self.model)
        self.model.train(training)
        output.metrics["eval_metric"] = metric
        # One answer more or less weighs far over 1e-6 of loss, so the loss only decides ties.
        output.metrics["eval_choice"] = metric - 1e-6 * output.metrics["eval_loss"]
        return output

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none: the card is made from measured numbers when the adapter is published."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        try:
            super()._save_checkpoint(model, trial)
        except (SafetensorError, RuntimeError) as error:
            if "os error" not in str(error) and "PytorchStreamWriter" not in str(error):
                raise
            raise OSError(errno.ENOSPC, "A checkpoint could not be written", self.args.output_dir) from error
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        (folder / COMPLETE).touch()


class Watcher(TrainerCallback):
    """Passes on what happened; tokens/s counts the tokens read since the watch began."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._began = time.monotonic()
        self._tokens = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Pass on a training step."""
        if not logs or "loss" not in logs:
            return
        tokens = logs.get("num_tokens", 0.0)
        speed = (tokens - self._tokens) / max(1e-9, time.monotonic() - self._began)
        self._began, self._tokens = time.monotonic(), tokens
        self._watch(Step(state.global_step, logs["loss"], speed))

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        """Pass on a look at the validation set."""
        self._watch(Step(state.global_step, None, None, metrics["eval_loss"], metrics["eval_metric"]))
        self._began = time.monotonic()
