"""Bases with a few thousand random weights, of any architecture of transformers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from support.checkouts import ROOT

SIZES: dict[str, Any] = {
    "vocab_size": 2048, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4,
    "num_key_value_heads": 2, "num_hidden_layers": 3, "max_position_embeddings": 256, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 3,
}  # fmt: skip


def tiny_model(model_type: str, *, seed: int = 3, **config: Any) -> Any:
    """Return a model with random weights, norms and biases included, scaled so that no two tokens nearly tie."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **SIZES | config))
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn_like(parameter)
        else:
            parameter.data *= 4
    return model.eval()


def tiny_base(folder: Path, model_type: str, *, seed: int = 3, **config: Any) -> Path:
    """Save a tiny model in several files, with the smoke base's tokenizer."""
    shutil.copytree(ROOT / "models" / "smoke", folder)
    (folder / "model.safetensors").unlink()
    tiny_model(model_type, seed=seed, **config).save_pretrained(folder, max_shard_size="200KB")
    return folder
