"""Whether oneDNN multiplies faster here, found by trying."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MOST_ROWS = 16
"""More rows than this are left to oneDNN untried: without it they may take a thousand times as long."""
GAIN = 1.2
"""oneDNN is switched off only where that is faster by this factor."""
TRIALS = 3


@contextmanager
def as_faster(weight: torch.Tensor, rows: int) -> Iterator[None]:
    """Run a forward pass over `rows` tokens with oneDNN on or off, whichever multiplies `weight` faster.

    oneDNN wins with many tokens and may lose with few: on x86 without 16-bit units it unpacks a 16-bit
    weight anew at each token.
    """
    import torch

    if weight.device.type != "cpu" or weight.is_mkldnn or rows > MOST_ROWS:  # packed weights choose for themselves
        yield
        return
    shape = (weight.shape[0], weight.shape[1])
    if not _better_off(shape, weight.dtype, 1 << (rows - 1).bit_length(), torch.get_num_threads()):
        yield
        return
    with _onednn(False):
        yield


@contextmanager
def _onednn(enabled: bool) -> Iterator[None]:
    """Switch it for the whole process: another thread may meanwhile multiply more slowly, but not wrongly."""
    mkldnn: Any = import_module("torch.backends.mkldnn")

    before, *_ = mkldnn.set_flags(_enabled=enabled, _fp32_precision=None)
    try:
        yield
    finally:
        mkldnn.set_flags(_enabled=before, _fp32_precision=None)


@cache
def _better_off(shape: tuple[int, int], dtype: torch.dtype, rows: int, threads: int) -> bool:
    import torch
    from torch.nn.functional import linear

    weight, given = torch.zeros(shape, dtype=dtype), torch.ones(rows, shape[1], dtype=dtype)
    seconds = {}
    for enabled in (True, False):
        with _onednn(enabled):
            linear(given, weight)
            trials = []
            for _ in range(TRIALS):
                began = time.perf_counter()
                linear(given, weight)
                trials.append(time.perf_counter() - began)
            seconds[enabled] = min(trials)
    return seconds[True] > GAIN * seconds[False]
