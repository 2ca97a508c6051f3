"""Adapters with random weights, for measurements that need different answers but no training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bilora.bases.base import Base
from bilora.params import Adapter
from bilora.training.adapter import attach, save

ATTENTION = ["qkv_proj", "o_proj", "q_proj", "k_proj", "v_proj"]
MLP = ["gate_up_proj", "down_proj", "gate_proj", "up_proj"]


def random_adapter(model: Any, folder: Path, base: Base, revision: str, kind: list[str], *, seed: int) -> Path:
    """Write an adapter of rank 16 for those layers of `kind` that the model has. The model is unchanged afterwards."""
    leaves = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    targets = [name for name in kind if name in leaves]
    wrapped = attach(model, Adapter(rank=16, alpha=32, dropout=0.0, target_modules=targets), seed=seed)
    torch.manual_seed(seed)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    save(wrapped, folder, base, revision)
    wrapped.unload()
    return folder
