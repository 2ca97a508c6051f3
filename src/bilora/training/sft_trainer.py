"""Train with TRL's SFTTrainer, extended by the task's metric, complete checkpoints and packed rows."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from datasets import Dataset
from safetensors import SafetensorError
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from bilora.inference.memory import return_freed_memory
from bilora.training import ranks
from bilora.training.adapter import cast_adapter
from bilora.training.arguments import common_arguments
from bilora.training.context import OnStep, Step, TrainingContext
from bilora.training.packed_model import PackedModel, TrainRows, can_pack, packed_rows
from bilora.training.phase import PhaseResult
from bilora.training.preflight import Preflight
from bilora.training.supervised import SupervisedRows, SupervisedSettings
from bilora.training.token_count import TokenCountMixin
from bilora.training.validation_bar import ValidationLossBar

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainerControl, TrainerState
    from transformers.trainer_utils import EvalLoopOutput

_STEPS_PER_RETURN = 16
"""Training steps between two returns of freed memory to the system; batches of different lengths fragment the heap."""
COMPLETE = "complete"
"""The file that is written last into a checkpoint."""


def train_supervised(context: TrainingContext, settings: SupervisedSettings, rows: SupervisedRows) -> PhaseResult:
    """Train the adapter on encoded rows, and load the best checkpoint into the model."""
    # 1) Build the trainer.
    trainer = AdapterTrainer(
        metric=context.validation_metric,
        patience=settings.patience,
        train_rows=context.joint.step_function(context.model) if context.joint else None,
        model=context.model,
        args=_arguments(context, settings),
        processing_class=context.tokenizer,
        train_dataset=_dataset(rows.train),
        eval_dataset=_dataset(rows.validation),
        data_collator=DataCollatorForLanguageModeling(pad_token_id=context.tokenizer.pad_token_id),
        callbacks=[EarlyStopping(settings.patience)],
    )
    trainer.add_callback(SupervisedProgress(context.on_step, lambda: trainer.tokens, context.clock))
    trainer.add_callback(ValidationLossBar(context.bars, context.task.name))
    trainer.remove_callback(PrinterCallback)
    # 2) Train, from the last complete checkpoint if there is one.
    checkpoint = ranks.broadcast(last_checkpoint(context.folder) if ranks.is_first() else None)
    started = context.clock()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    # 3) Read the best checkpoint's metrics from the history.
    return _result(trainer, rows, checkpoint, context.clock() - started)


def _arguments(context: TrainingContext, settings: SupervisedSettings) -> SFTConfig:
    """Return the trainer's arguments; `eval_choice` selects the best checkpoint."""
    return SFTConfig(
        **common_arguments(context, settings),
        per_device_eval_batch_size=settings.batch_size,
        packing=False,
        train_sampling_strategy="group_by_length",
        dataset_kwargs={"skip_prepare_dataset": True},
        eval_strategy="steps",
        eval_steps=settings.evaluate_every,
        save_strategy="steps" if ranks.is_first() else "no",
        save_steps=settings.evaluate_every,
        save_total_limit=2,
        load_best_model_at_end=ranks.is_first(),  # the others get its weights
        metric_for_best_model="eval_choice",
        greater_is_better=True,
    )


def _dataset(preflight: Preflight) -> Dataset:
    return Dataset.from_list(
        [{"input_ids": row.input_ids, "labels": row.labels, "length": len(row.input_ids)} for row in preflight.rows]
    )


def _result(trainer: AdapterTrainer, rows: SupervisedRows, checkpoint: Path | None, duration: float) -> PhaseResult:
    steps = trainer.state.global_step
    evaluations = [row for row in trainer.state.log_history if "eval_metric" in row]
    losses = [float(row["loss"]) for row in trainer.state.log_history if "loss" in row]
    best = max(evaluations, key=lambda row: float(row["eval_choice"]))
    best_step = int(best["step"])
    resumed_from = _step_of(checkpoint) if checkpoint else 0
    return PhaseResult(
        metric=best["eval_metric"],
        tokens=trainer.tokens,
        duration_s=duration,
        summary=f"best of {steps} steps: {best_step}, {trainer.tokens / duration:,.0f} tokens/s",
        resumed_from=resumed_from,
        metrics={
            "steps": steps,
            "best_step": best_step,
            "best_metric": best["eval_metric"],
            "validation_loss": best["eval_loss"],
            "train_loss": sum(losses) / len(losses),
            "tokens": trainer.tokens,
            "duration_s": duration,
            "tokens_per_s": trainer.tokens / duration,
            "resumed_from": resumed_from,
            "rows": len(rows.train.rows),
            "too_long": rows.train.too_long,
        },
    )


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint, and remove incomplete ones."""
    complete = []
    for path in folder.glob("checkpoint-*"):
        if (path / COMPLETE).is_file():
            complete.append(path)
        else:
            shutil.rmtree(path)
    return max(complete, key=_step_of, default=None)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.partition("-")[2] or 0)


def is_finished(state: TrainerState, patience: int) -> bool:
    """Return whether all steps are done, or none of the last `patience` evaluations was the best.

    The history is part of a checkpoint, so a resumed run ends at the same step as one without a kill.
    """
    choices = [row["eval_choice"] for row in state.log_history if "eval_choice" in row]
    exhausted = bool(choices) and len(choices) - 1 - choices.index(max(choices)) >= patience
    return exhausted or state.global_step >= state.max_steps


class AdapterTrainer(TokenCountMixin, SFTTrainer):
    """SFTTrainer whose `eval_choice` is the task's metric on generated completions; the loss breaks ties."""

    def __init__(
        self, *, metric: Callable[[], float], patience: int, train_rows: TrainRows | None = None, **arguments: object
    ) -> None:
        """Build the trainer.

        Args:
            metric: evaluates the current model.
            patience: see `is_finished`.
            train_rows: trains on packed rows; None for this trainer's `PackedModel`. Unused if rows cannot be packed.
            arguments: those of SFTTrainer.
        """
        super().__init__(**arguments)
        self._metric = metric
        self._patience = patience
        cast_adapter(self.model)  # TRL casts adapters on quantized bases to 16-bit
        packable = can_pack(self.model.get_base_model()) and self.accelerator.num_processes == 1 and not self.args.fp16
        self._packed = PackedModel([self.model]) if packable else None
        self._train_rows = (train_rows or self._packed.train_one) if self._packed else None

    def _run_epoch(self, *arguments: object, **options: object) -> None:
        """Train for an epoch, unless a killed run had already done its last step."""
        if is_finished(self.state, self._patience):
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*arguments, **options)

    def evaluation_loop(self, *arguments: object, **options: object) -> EvalLoopOutput:
        """Evaluate, and add `eval_metric` and `eval_choice` to the metrics."""
        return_freed_memory()
        output = super().evaluation_loop(*arguments, **options)
        metric = self._metric()
        return_freed_memory()
        output.metrics["eval_metric"] = metric
        # One completion changes the metric by far more than 1e-6 of loss, so the loss only breaks ties.
        output.metrics["eval_choice"] = metric - 1e-6 * output.metrics["eval_loss"]
        return output

    def training_step(
        self,
        model: PreTrainedModel,
        inputs: Mapping[str, torch.Tensor],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Add the gradients of a batch, and return its loss, normalized as in TRL."""
        if self._train_rows is None:
            loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
            return loss
        if self.model.device.type == "cpu" and self.state.global_step % _STEPS_PER_RETURN == 0:
            return_freed_memory()
        self.count(inputs)
        if not model.training:
            model.train()
        rows = packed_rows(self._prepare_inputs(inputs))
        if num_items_in_batch is None:
            count = sum(row.trained_tokens for row in rows) * self.current_gradient_accumulation_steps
        else:
            count = int(num_items_in_batch)
        return self._train_rows(rows, 1 / max(1, count))

    def prediction_step(
        self, model: PreTrainedModel, inputs: dict[str, torch.Tensor], *arguments: object, **options: object
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Return the loss of a validation batch."""
        if self._packed is None:
            return super().prediction_step(model, inputs, *arguments, **options)  # type: ignore[no-any-return]
        rows = packed_rows(self._prepare_inputs(inputs))
        return self._packed.measure(rows) / max(1, sum(row.trained_tokens for row in rows)), None, None

    def floating_point_ops(self, inputs: object) -> int:
        """Return 0: transformers would visit all modules at every step for an unused number."""
        return 0

    def create_model_card(self, *_: object, **__: object) -> None:
        """Write no model card: publishing writes one."""

    def _save_checkpoint(self, model: PreTrainedModel, trial: object) -> None:
        try:
            super()._save_checkpoint(model, trial)
        except (SafetensorError, RuntimeError) as error:
            if "os error" not in str(error) and "PytorchStreamWriter" not in str(error):
                raise
            raise OSError(errno.ENOSPC, "A checkpoint could not be written", self.args.output_dir) from error
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        (folder / COMPLETE).touch()


class EarlyStopping(TrainerCallback):
    """Stops training after `patience` evaluations without a better one.

    Unlike transformers' callback, it does not start counting again in a resumed run.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience

    def on_evaluate(self, args: object, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Stop if `is_finished`."""
        if is_finished(state, self._patience):
            control.should_training_stop = True


class SupervisedProgress(TrainerCallback):
    """Reports steps and evaluations, with tokens per second since the last report, without evaluations."""

    def __init__(self, on_step: OnStep, tokens_read: Callable[[], int], clock: Callable[[], float]) -> None:
        self._on_step = on_step
        self._tokens_read = tokens_read
        self._clock = clock
        self._started = clock()
        self._tokens = 0

    def on_train_begin(self, *_: object, **__: object) -> None:
        """Start the clock."""
        self._started = self._clock()

    def on_log(
        self, args: object, state: TrainerState, control: object, logs: dict[str, float] | None = None, **_: object
    ) -> None:
        """Report a training step."""
        if not logs or "loss" not in logs:
            return
        tokens, now = self._tokens_read(), self._clock()
        tokens_per_s = (tokens - self._tokens) / max(1e-9, now - self._started)
        self._started, self._tokens = now, tokens
        self._on_step(Step(state.global_step, logs["loss"], tokens_per_s))

    def on_evaluate(
        self, args: object, state: TrainerState, control: object, metrics: dict[str, float], **_: object
    ) -> None:
        """Report an evaluation."""
        self._on_step(Step(state.global_step, validation_loss=metrics["eval_loss"], metric=metrics["eval_metric"]))
        self._started = self._clock()
