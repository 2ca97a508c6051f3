"""What TRL's trainers are told; every setting that matters is said, because their defaults fit other work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from bilora.params import Preference, Training


def _shared(training: Training, steps: int, seed: int, output: Path, sinks: Sequence[str]) -> dict[str, Any]:
    """What both phases have in common: the optimiser, the precision, the seeds."""
    import torch

    cuda = torch.cuda.is_available()
    bf16 = cuda and torch.cuda.is_bf16_supported()
    return {
        "output_dir": str(output),
        "max_steps": steps,
        "lr_scheduler_type": "cosine",
        "warmup_steps": math.ceil(steps * training.warmup),
        "weight_decay": 0.0,
        "max_grad_norm": training.clip,
        "optim": "adamw_torch_fused",
        "bf16": bf16,
        "fp16": cuda and not bf16,
        "activation_checkpointing": False,
        "max_length": None,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "seed": seed,
        "data_seed": seed,
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
        "disable_tqdm": True,
        "report_to": list(sinks) or "none",
    }


def supervised(training: Training, *, seed: int, output: Path, sinks: Sequence[str]) -> Any:
    """Settings of the first phase: checkpoints are chosen by the task's metric (`eval_choice`)."""
    from trl import SFTConfig

    return SFTConfig(
        **_shared(training, training.steps, seed, output, sinks),
        per_device_train_batch_size=training.batch_size,
        per_device_eval_batch_size=training.batch_size,
        gradient_accumulation_steps=training.accumulation,
        learning_rate=training.learning_rate,
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
    )


def preference(
    kind: Literal["kto", "dpo"],
    training: Training,
    phase: Preference,
    *,
    balance: tuple[float, float],
    seed: int,
    output: Path,
    sinks: Sequence[str],
) -> Any:
    """Settings of the second phase. It is short, so it is repeated rather than resumed.

    Args:
        balance: KTO's weights of praised and blamed answers.
    """
    from trl import DPOConfig, KTOConfig

    settings = {
        **_shared(training, phase.steps, seed, output, sinks),
        "per_device_train_batch_size": phase.batch_size,
        "learning_rate": phase.learning_rate,
        "beta": phase.beta,
        "save_strategy": "no",
        "eval_strategy": "no",
    }
    if kind == "dpo":
        return DPOConfig(**settings)
    return KTOConfig(**settings, desirable_weight=balance[0], undesirable_weight=balance[1])
