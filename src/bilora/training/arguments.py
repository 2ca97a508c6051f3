"""The arguments of TRL's trainers that all phases share."""

from __future__ import annotations

import math
from dataclasses import fields

from bilora.plugins import PhaseSettings
from bilora.training.context import TrainingContext


def common_arguments(context: TrainingContext, settings: PhaseSettings) -> dict[str, object]:
    """Return optimizer, precision, seeds, output folder and logging, by their names in `TrainingArguments`."""
    import torch

    cuda = torch.cuda.is_available()
    bf16 = cuda and torch.cuda.is_bf16_supported()
    return {
        "output_dir": str(context.folder),
        "max_steps": settings.steps,
        "per_device_train_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.accumulation,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": math.ceil(settings.steps * settings.warmup),
        "weight_decay": 0.0,
        "max_grad_norm": settings.clip,
        "optim": "adamw_torch_fused",
        "bf16": bf16,
        "fp16": cuda and not bf16,
        **no_checkpointing(),
        "max_length": None,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "seed": context.seed,
        "data_seed": context.seed,
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
        "disable_tqdm": True,
        "report_to": list(context.sinks) or "none",
    }


def no_checkpointing() -> dict[str, object]:
    """Return the argument that turns activation checkpointing off; transformers renamed it after 5.9."""
    from transformers import TrainingArguments

    names = {field.name for field in fields(TrainingArguments)}
    return {"activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing": False}
