"""How much of the machine a training uses: model FLOP utilisation (Chowdhery et al. 2022, PaLM, appendix B)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def flops_per_token(model: PreTrainedModel, width: int) -> float:
    """Floating-point operations that training needs for one token in windows of `width`, without recomputation.

    Six for each weight of a matrix product (two forward, four backward; the tied head is one, the embedding is a
    look-up), and the attention's products over the half of the window that a token sees on average.
    """
    config = model.config
    weights = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name)
    head = config.vocab_size * config.hidden_size
    attention = config.num_hidden_layers * config.hidden_size * width
    return float(6 * (weights + head + attention))


def peak_flops(device: str, kind: torch.dtype) -> float:
    """The most floating-point operations per second that a large matrix product of this type reaches here."""
    size = 8192 if device == "cuda" else 1536
    left, right = (torch.rand(size, size, device=device, dtype=kind) for _ in range(2))
    best = 0.0
    for _ in range(6):
        began = time.perf_counter()
        product = left @ right
        product[0, 0].item()  # waits for a GPU
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best
