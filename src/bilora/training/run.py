"""Training one task's adapter from its split, with everything that is needed to do it again."""

from __future__ import annotations

import math
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bilora.errors import PreflightFailed
from bilora.inference.loading import Loaded, stop_ids
from bilora.inference.local import LocalEngine
from bilora.params import Base, Generation, TaskParams
from bilora.ports import Referees
from bilora.records import Sample
from bilora.tasks.task import Task
from bilora.training.adapter import attach, save
from bilora.training.preflight import Preflight, preflight
from bilora.training.trainer import AdapterTrainer, Watch, Watcher, last_checkpoint


@dataclass(frozen=True)
class Trained:
    """How a run went. `best_metric` is the chosen checkpoint's on the validation sample."""

    steps: int
    best_step: int
    best_metric: float
    base_metric: float
    validation_loss: float
    train_loss: float
    tokens: int
    duration_s: float
    tokens_per_s: float
    resumed_from: int
    rows: int
    too_long: int
    trainable_parameters: int


def measure(
    engine: LocalEngine,
    system: str,
    task: Task,
    samples: Sequence[Sample],
    generation: Generation,
    referees: Referees,
    seed: int,
) -> float:
    """Mean headline score of `system` on `samples`, exactly as the benchmark asks and scores.

    Raises:
        PreflightFailed: every score is missing, so that no checkpoint could be chosen.
    """
    completions = engine.generate(system, task.requests(samples, generation, seed))
    pairs = [(sample, task.extract(made.text)) for sample, made in zip(samples, completions, strict=True)]
    scores = task.metrics[0].score(pairs, referees, system=system)
    values = [row[0].value for row in scores if row[0].value is not None]
    if not values:
        raise PreflightFailed(f"No validation answer of {task.name} could be scored: {scores[0][0].reason}.")
    return sum(values) / len(values)


def _pick(samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    ordered = sorted(samples, key=lambda sample: sample.id)
    return random.Random(seed).sample(ordered, min(count, len(ordered)))


def _arguments(task_params: TaskParams, seed: int, output: Path, sinks: Sequence[str]) -> Any:
    import torch
    from trl import SFTConfig

    training, cuda = task_params.training, torch.cuda.is_available()
    bf16 = cuda and torch.cuda.is_bf16_supported()
    return SFTConfig(
        output_dir=str(output),
        max_steps=training.steps,
        per_device_train_batch_size=training.batch_size,
        per_device_eval_batch_size=training.batch_size,
        gradient_accumulation_steps=training.accumulation,
        learning_rate=training.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(training.steps * training.warmup),
        weight_decay=0.0,
        max_grad_norm=training.clip,
        optim="adamw_torch_fused",
        bf16=bf16,
        fp16=cuda and not bf16,
        activation_checkpointing=False,
        max_length=None,
        packing=False,
        train_sampling_strategy="group_by_length",
        dataset_kwargs={"skip_prepare_dataset": True},
        eval_strategy="steps",
        eval_steps=training.evaluate_every,
        save_strategy="steps",
        save_steps=training.evaluate_every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_choice",
        greater_is_better=True,
        logging_steps=1,
        logging_nan_inf_filter=False,
        seed=seed,
        data_seed=seed,
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        disable_tqdm=True,
        report_to=list(sinks) or "none",
    )


def train(
    task: Task,
    *,
    params: TaskParams,
    base: Base,
    base_revision: str,
    loaded: Loaded,
    train_samples: Sequence[Sample],
    validation_samples: Sequence[Sample],
    referees: Referees,
    seed: int,
    identity: str,
    checkpoints: Path,
    destination: Path,
    sinks: Sequence[str] = (),
    watch: Watch,
    announce: Callable[[Preflight], None],
) -> Trained:
    """Train, keep the best checkpoint by the task's own metric, save it to `destination`.

    An interrupted run of the same `identity` (hash of everything that decides the outcome) goes on
    from its last whole checkpoint; checkpoints of any other identity are never used.

    Raises:
        PreflightFailed: before the first step, when training would not teach what it should.
    """
    from datasets import Dataset
    from transformers import EarlyStoppingCallback, PrinterCallback
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    tokenizer, generation = loaded.tokenizer, params.generation
    stops = stop_ids(loaded.model, tokenizer)
    checked = preflight(tokenizer, task, train_samples, stops, max_length=params.training.max_length)
    held_out = _pick(validation_samples, params.training.evaluate_samples, seed)
    watched = preflight(tokenizer, task, held_out, stops, max_length=params.training.max_length)
    announce(checked)
    base_metric = measure(
        LocalEngine(loaded, {}, batch_size=generation.batch_size),
        "base",
        task,
        held_out,
        generation,
        referees,
        seed,
    )
    model = attach(loaded.model, params.adapter, seed=seed)

    def score(current: Any) -> float:
        carried = Loaded(current, tokenizer, loaded.mode)
        engine = LocalEngine(carried, {}, batch_size=generation.batch_size, carries=task.name)
        return measure(engine, task.name, task, held_out, generation, referees, seed)

    folder = checkpoints / identity[:16]
    for other in checkpoints.glob("*"):
        if other != folder:
            shutil.rmtree(other)
    trainer = AdapterTrainer(
        measure=score,
        model=model,
        args=_arguments(params, seed, folder, sinks),
        processing_class=tokenizer,
        train_dataset=_dataset(checked, Dataset),
        eval_dataset=_dataset(watched, Dataset),
        data_collator=DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id),
        callbacks=[Watcher(watch), EarlyStoppingCallback(params.training.patience)],
    )
    trainer.remove_callback(PrinterCallback)
    resume = last_checkpoint(folder)
    began = time.monotonic()
    result = trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    duration = time.monotonic() - began
    save(trainer.model, destination, base, base_revision)
    best = Path(trainer.state.best_model_checkpoint or "")
    tokens = int(getattr(trainer, "_total_train_tokens", 0))
    looks = [row for row in trainer.state.log_history if "eval_metric" in row]
    chosen = max(looks, key=lambda row: row["eval_choice"])
    outcome = Trained(
        steps=trainer.state.global_step,
        best_step=int(best.name.partition("-")[2] or trainer.state.global_step),
        best_metric=chosen["eval_metric"],
        base_metric=base_metric,
        validation_loss=chosen["eval_loss"],
        train_loss=float(result.training_loss),
        tokens=tokens,
        duration_s=duration,
        tokens_per_s=tokens / duration,
        resumed_from=int(resume.name.partition("-")[2]) if resume else 0,
        rows=len(checked.rows),
        too_long=checked.too_long,
        trainable_parameters=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
    )
    shutil.rmtree(checkpoints)
    return outcome


def _dataset(checked: Preflight, kind: Any) -> Any:
    return kind.from_list(
        [{"input_ids": row.input_ids, "labels": row.labels, "length": len(row.input_ids)} for row in checked.rows]
    )
