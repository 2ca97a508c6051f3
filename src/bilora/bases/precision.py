"""The precision that a base's weights have in memory: as params say, or 16-bit where this machine is faster with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Literal

from bilora.plugins import Dtype, Quantize

Precision = Literal["float32", "bfloat16", "float16"]
NUMBER_BYTES: dict[Precision, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
_MAX_WEIGHTS_SHARE = 0.4
"""Of a GPU's memory, what weights may take in training: the rest is for a pass, the logits and the adapter."""

_ROWS, _WIDTH = 128, 1024
"""The shape of the timed product: bound by arithmetic, and some milliseconds long in 32-bit."""
_TRIALS = 5
_MIN_SPEEDUP = 1.3
"""A processor with bfloat16 instructions multiplies it two to eight times as fast as 32-bit, one that emulates it at
half the speed or less: neither comes near this factor by chance."""


def resolve_dtype(dtype: Dtype) -> Precision:
    """Return the precision that `dtype` means on this machine; all but `auto` mean themselves.

    `auto` is bfloat16 where the GPU supports it or, without a GPU, where a short trial finds the processor faster with
    it; else float32. The trial takes some tens of milliseconds, once per process.
    """
    return _fastest_precision() if dtype == "auto" else dtype


def resolve_quantize(quantize: Quantize | None, weight_bytes: Callable[[], int]) -> Literal["nf4"] | None:
    """Return whether to train on a 4-bit copy on this machine; `auto` does where a GPU has little memory for the base.

    Args:
        weight_bytes: returns the size of the base's weights in memory.
    """
    import torch

    if quantize != "auto":
        return quantize
    if not torch.cuda.is_available():
        return None
    memory = torch.cuda.get_device_properties(0).total_memory
    return "nf4" if weight_bytes() > _MAX_WEIGHTS_SHARE * memory else None


@cache
def _fastest_precision() -> Precision:
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for each other under load would blur the comparison
    try:
        return "bfloat16" if _seconds("float32") > _MIN_SPEEDUP * _seconds("bfloat16") else "float32"
    finally:
        torch.set_num_threads(threads)


def _seconds(precision: Precision) -> float:
    """Return the processor time of a product of matrices: the least of some trials."""
    import torch
    from torch.nn.functional import linear

    dtype = getattr(torch, precision)
    inputs, weight = torch.ones(_ROWS, _WIDTH, dtype=dtype), torch.ones(_WIDTH, _WIDTH, dtype=dtype)
    linear(inputs, weight)  # warm-up
    trials = []
    for _ in range(_TRIALS):
        began = time.thread_time()
        linear(inputs, weight)
        trials.append(time.thread_time() - began)
    return min(trials)
