"""The precision that a base's weights have in memory: as params say, or 16-bit where this machine is faster with it."""

from __future__ import annotations

import time
from functools import cache
from typing import Literal

from bilora.kinds import Dtype

Precision = Literal["float32", "bfloat16", "float16"]

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
