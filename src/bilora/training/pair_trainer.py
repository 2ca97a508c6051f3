"""Train on preference pairs with a TRL trainer; the adapter from before the phase is the reference model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback

from bilora.training.adapter import cast_adapter
from bilora.training.context import OnStep, Step, TrainingContext
from bilora.training.pairs import PairRows
from bilora.training.phase import PhaseResult
from bilora.training.token_count import TokenCountMixin

if TYPE_CHECKING:
    from transformers import Trainer, TrainerState, TrainingArguments

REFERENCE_ADAPTER = "ref"
"""TRL's name of the frozen copy of the adapter."""


def train_pairs(
    context: TrainingContext, trainer_type: type[Trainer], arguments: TrainingArguments, rows: PairRows
) -> PhaseResult:
    """Train the adapter on encoded pairs, and evaluate it on the validation subset at the end.

    It writes no checkpoints, because the phase is short: a killed phase starts again.
    """
    trainer = _for_encoded_rows(trainer_type)(
        model=context.model,
        args=arguments,
        processing_class=context.tokenizer,
        train_dataset=Dataset.from_list(rows.rows),
        callbacks=[PairProgress(context.on_step)],
    )
    trainer.remove_callback(PrinterCallback)
    cast_adapter(context.model)  # TRL casts adapters on quantized bases to 16-bit
    result = trainer.train()
    context.model.delete_adapter(REFERENCE_ADAPTER)
    margin = mean_margin(trainer.state.log_history)
    metric = context.validation_metric()
    duration = float(result.metrics["train_runtime"])
    return PhaseResult(
        metric=metric,
        tokens=trainer.tokens,
        duration_s=duration,
        summary=f"{len(rows.rows)} rated rows, {rows.too_long} skipped as too long, "
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
    """Return the mean of TRL's reward margins; None if no batch had both chosen and rejected completions."""
    margins = [row["rewards/margins"] for row in log if "rewards/margins" in row]
    return sum(margins) / len(margins) if margins else None


def _for_encoded_rows(trainer_type: type[Trainer]) -> type[Trainer]:
    """Return a subclass of the trainer that takes encoded rows and counts their tokens."""

    class EncodedRowsTrainer(TokenCountMixin, trainer_type):
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
