"""Choose the precision of a base's weights: as params say, or 16-bit if this machine is faster with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Literal

from bilora.plugins import Dtype, Quantize

Precision = Literal["float32", "bfloat16", "float16"]
NUMBER_BYTES: dict[Precision, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
_MAX_WEIGHTS_SHARE = 0.4
"""The share of a GPU's memory that weights may use in training; activations, logits and the adapter need memory too."""

_ROWS, _WIDTH = 128, 1024
"""The shape of the timed product: compute-bound, and some milliseconds long in float32."""
_TRIALS = 5
_MIN_SPEEDUP = 1.3
"""bfloat16 instructions make the product two to eight times as fast as in float32, emulation at most half as fast."""


def resolve_dtype(dtype: Dtype) -> Precision:
    """Return the precision that `dtype` means on this machine.

    `auto` is bfloat16 if the GPU supports it or, without a GPU, if a short trial shows that the CPU is faster with it;
    else float32. The trial takes some tens of milliseconds, once per process.
    """
    return _fastest_precision() if dtype == "auto" else dtype


def resolve_quantize(quantize: Quantize | None, weight_bytes: Callable[[], int]) -> Literal["nf4"] | None:
    """Return the quantization for training that `quantize` means on this machine.

    `auto` is nf4 if the weights would use more than `_MAX_WEIGHTS_SHARE` of the GPU's memory.

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
    torch.set_num_threads(1)  # several threads would wait for each other under load
    try:
        return "bfloat16" if _seconds("float32") > _MIN_SPEEDUP * _seconds("bfloat16") else "float32"
    finally:
        torch.set_num_threads(threads)


def _seconds(precision: Precision) -> float:
    """Return the minimum CPU time of a matrix product over some trials."""
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
