"""Adapters with random weights, written without training."""

from __future__ import annotations

from pathlib import Path

import torch

from bilora.bases.base import Base
from bilora.params import Adapter
from bilora.training.adapter import attach_adapter, save_adapter


def write_random_adapter(
    folder: Path, base: Base, targets: list[str], *, seed: int, rank: int = 4, std: float = 0.5
) -> Path:
    """Write an adapter with a random B, so that its answers differ from the base's and from those of other seeds."""
    model = attach_adapter(
        base.load(training=False).model,
        Adapter(rank=rank, alpha=16 * rank, dropout=0.0, target_modules=targets),
        seed=seed,
    )
    torch.manual_seed(seed)
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=std)
    save_adapter(model, folder, base, base.identity)
    return folder
