"""TRL's SFTTrainer with the task's own metric, whole checkpoints, and a count of the tokens it has read."""

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
from bilora.training.adapter import cast_adapter
from bilora.training.arguments import common_arguments
from bilora.training.context import OnStep, Step, TrainingContext
from bilora.training.packed_model import PackedModel, TrainRows, can_pack, packed_rows
from bilora.training.phase import PhaseResult
from bilora.training.preflight import Preflight
from bilora.training.supervised import SupervisedRows, SupervisedSettings
from bilora.training.token_count import TokenCount
from bilora.training.validation_bar import ValidationLossBar

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainerControl, TrainerState
    from transformers.trainer_utils import EvalLoopOutput

_STEPS_PER_RETURN = 16
"""Training steps between two returns of freed memory: batches differ in length, so that the heap is ever less dense."""
COMPLETE = "complete"
"""Name of the file that is written last into a checkpoint."""


def train_supervised(context: TrainingContext, settings: SupervisedSettings, rows: SupervisedRows) -> PhaseResult:
    """Train the adapter on encoded rows, and leave the model with the best checkpoint's.

    1) Build the trainer. 2) Resume from the last whole checkpoint, if there is one. 3) Read from the history what
    the best checkpoint has reached.
    """
    trainer = AdapterTrainer(
        metric=context.validation_metric,
        patience=settings.patience,
        train_rows=context.together.steps_of(context.model) if context.together else None,
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
    checkpoint = last_checkpoint(context.folder)
    started = context.clock()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return _result(trainer, rows, checkpoint, context.clock() - started)


def _arguments(context: TrainingContext, settings: SupervisedSettings) -> SFTConfig:
    """Return the trainer's settings: checkpoints are selected by the task's metric (`eval_choice`)."""
    return SFTConfig(
        **common_arguments(context, settings),
        per_device_eval_batch_size=settings.batch_size,
        packing=False,
        train_sampling_strategy="group_by_length",
        dataset_kwargs={"skip_prepare_dataset": True},
        eval_strategy="steps",
        eval_steps=settings.evaluate_every,
        save_strategy="steps",
        save_steps=settings.evaluate_every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_choice",
        greater_is_better=True,
    )


def _dataset(checked: Preflight) -> Dataset:
    return Dataset.from_list(
        [{"input_ids": row.input_ids, "labels": row.labels, "length": len(row.input_ids)} for row in checked.rows]
    )


def _result(trainer: AdapterTrainer, rows: SupervisedRows, checkpoint: Path | None, duration: float) -> PhaseResult:
    steps = trainer.state.global_step
    best_step = _step_of(Path(trainer.state.best_model_checkpoint or "")) or steps
    evaluations = [row for row in trainer.state.log_history if "eval_metric" in row]
    losses = [float(row["loss"]) for row in trainer.state.log_history if "loss" in row]
    best = max(evaluations, key=lambda row: float(row["eval_choice"]))
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
    """Return the newest whole checkpoint; remove those that a kill left unfinished."""
    whole = []
    for path in folder.glob("checkpoint-*"):
        if (path / COMPLETE).is_file():
            whole.append(path)
        else:
            shutil.rmtree(path)
    return max(whole, key=_step_of, default=None)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.partition("-")[2] or 0)


def is_finished(state: TrainerState, patience: int) -> bool:
    """Return whether all steps are taken, or none of the last `patience` evaluations was the best.

    It follows from the history, which a checkpoint holds, so a resumed run ends where it would have without the kill.
    """
    choices = [row["eval_choice"] for row in state.log_history if "eval_choice" in row]
    exhausted = bool(choices) and len(choices) - 1 - choices.index(max(choices)) >= patience
    return exhausted or state.global_step >= state.max_steps


class AdapterTrainer(TokenCount, SFTTrainer):
    """SFTTrainer whose `eval_choice` is the task's metric on generated answers, ties broken by loss."""

    def __init__(
        self, *, metric: Callable[[], float], patience: int, train_rows: TrainRows | None = None, **arguments: object
    ) -> None:
        """Take what selects checkpoints and ends training, and what TRL's trainer takes.

        Args:
            train_rows: who trains on packed rows; if None, this trainer itself. Unused where rows cannot be packed.
        """
        super().__init__(**arguments)
        self._metric = metric
        self._patience = patience
        cast_adapter(self.model)  # TRL casts adapters on quantised bases to 16 bit
        packs = can_pack(self.model.get_base_model()) and self.accelerator.num_processes == 1 and not self.args.fp16
        self._packed = PackedModel([self.model]) if packs else None
        self._train_rows = (train_rows or self._packed.train_one) if self._packed else None

    def _run_epoch(self, *arguments: object, **options: object) -> None:
        """Train for an epoch; a run that was killed after its last step takes no further one."""
        if is_finished(self.state, self._patience):
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*arguments, **options)

    def evaluation_loop(self, *arguments: object, **options: object) -> EvalLoopOutput:
        """Add `eval_metric` and `eval_choice` before any callback reads the metrics."""
        return_freed_memory()
        output = super().evaluation_loop(*arguments, **options)
        metric = self._metric()
        return_freed_memory()
        output.metrics["eval_metric"] = metric
        # One answer more or less weighs far over 1e-6 of loss, so the loss only decides ties.
        output.metrics["eval_choice"] = metric - 1e-6 * output.metrics["eval_loss"]
        return output

    def training_step(
        self,
        model: PreTrainedModel,
        inputs: Mapping[str, torch.Tensor],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Add the gradients of a batch and return its loss, normalised as TRL does."""
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
            count = sum(row.trained for row in rows) * self.current_gradient_accumulation_steps
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
        return self._packed.measure(rows) / max(1, sum(row.trained for row in rows)), None, None

    def floating_point_ops(self, inputs: object) -> int:
        """Count none: transformers would walk through all modules at every step, and nothing reads the number."""
        return 0

    def create_model_card(self, *_: object, **__: object) -> None:
        """Write none: the card is made from measured numbers when the adapter is published."""

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
    """Stops after `patience` evaluations without a better one.

    transformers' own starts counting again in a resumed run.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience

    def on_evaluate(self, args: object, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Stop if the last evaluation was one too many."""
        if is_finished(state, self._patience):
            control.should_training_stop = True


class SupervisedProgress(TrainerCallback):
    """Reports steps and evaluations; tokens per second are measured between two reports, evaluations excluded."""

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
        speed = (tokens - self._tokens) / max(1e-9, now - self._started)
        self._started, self._tokens = now, tokens
        self._on_step(Step(state.global_step, logs["loss"], speed))

    def on_evaluate(
        self, args: object, state: TrainerState, control: object, metrics: dict[str, float], **_: object
    ) -> None:
        """Report an evaluation."""
        self._on_step(Step(state.global_step, validation_loss=metrics["eval_loss"], metric=metrics["eval_metric"]))
        self._started = self._clock()
