"""Training on rated pairs with one of TRL's trainers; the adapter as it was before the phase is the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback

from bilora.training.adapter import cast_adapter
from bilora.training.context import OnStep, Step, TrainingContext
from bilora.training.pairs import PairRows
from bilora.training.phase import PhaseResult
from bilora.training.token_count import TokenCount

if TYPE_CHECKING:
    from transformers import Trainer, TrainerState, TrainingArguments

REFERENCE_ADAPTER = "ref"
"""The name under which TRL keeps a frozen copy of the adapter beside the one in training."""


def train_pairs(
    context: TrainingContext, trainer_type: type[Trainer], arguments: TrainingArguments, rows: PairRows
) -> PhaseResult:
    """Train the adapter on encoded pairs and measure it on the validation sample once.

    It writes no checkpoints: it is short, so a killed phase repeats its steps.
    """
    trainer = _on_encoded_rows(trainer_type)(
        model=context.model,
        args=arguments,
        processing_class=context.tokenizer,
        train_dataset=Dataset.from_list(rows.rows),
        callbacks=[PairProgress(context.on_step)],
    )
    trainer.remove_callback(PrinterCallback)
    cast_adapter(context.model)  # TRL casts adapters on quantised bases to 16 bit
    result = trainer.train()
    context.model.delete_adapter(REFERENCE_ADAPTER)
    margin = mean_margin(trainer.state.log_history)
    metric = context.validation_metric()
    duration = float(result.metrics["train_runtime"])
    return PhaseResult(
        metric=metric,
        tokens=trainer.tokens,
        duration_s=duration,
        summary=f"{len(rows.rows)} rated rows, {rows.too_long} too long and left out, "
        + ("no margin was measured" if margin is None else f"margin {margin:+.3f}"),
        metrics={
            "rows": len(rows.rows),
            "too_long": rows.too_long,
            "steps": trainer.state.global_step,
            "loss": float(result.training_loss),
            "duration_s": duration,
            "metric": metric,
        }
        | ({} if margin is None else {"margin": margin}),
    )


def mean_margin(log: Sequence[Mapping[str, float]]) -> float | None:
    """Return the mean of TRL's reward margins; None if no batch had both a better and a worse answer."""
    margins = [row["rewards/margins"] for row in log if "rewards/margins" in row]
    return sum(margins) / len(margins) if margins else None


def _on_encoded_rows(trainer_type: type[Trainer]) -> type[Trainer]:
    """Return the trainer for rows that are encoded already, with a count of the tokens that it has read."""

    class EncodedRowsTrainer(TokenCount, trainer_type):
        def _prepare_dataset(self, dataset: Dataset, *_: object) -> Dataset:
            return dataset

    return EncodedRowsTrainer


class PairProgress(TrainerCallback):
    """Reports each step with its loss."""

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step

    def on_log(
        self, args: object, state: TrainerState, control: object, logs: dict[str, float] | None = None, **_: object
    ) -> None:
        """Report a training step."""
        if logs and "loss" in logs:
            self._on_step(Step(state.global_step, logs["loss"]))
