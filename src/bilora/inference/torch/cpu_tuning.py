"""Choose the faster matrix products on this CPU by timing: packed weights or not, oneDNN or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, cast

import torch
from torch.backends import mkldnn
from torch.nn import Linear
from torch.nn.functional import linear

from bilora.inference.torch.packed_linear import PackedLinear

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SMALL_BATCH_ROWS, UNLIMITED_ROWS = 16, 2**63
"""Values of `max_packed_rows`: without the CPU's 16-bit units, and with them."""
TRIAL_BYTES = 2**29
"""Minimum size of the layers in a trial: a single layer would be read from a cache."""

_MIN_SPEEDUP = 1.2
"""The alternative must be faster than the default by this factor."""
_TRIALS = 3
_PROMPT_ROWS, _OUTPUT_ROWS = 64, 32
"""The lengths of the timed prompt and answer."""
_MAX_TRIED_ROWS = 16
"""More rows use oneDNN without a trial: without oneDNN they can take a thousand times as long."""


@contextmanager
def onednn_if_faster(weight: torch.Tensor, rows: int) -> Iterator[None]:
    """Run a forward pass over `rows` tokens with oneDNN on or off, whichever multiplies `weight` faster.

    oneDNN is faster for many tokens and can be slower for a single one: on x86 without 16-bit units it converts a
    16-bit weight again for each product.
    """
    if weight.device.type != "cpu" or weight.is_mkldnn or rows > _MAX_TRIED_ROWS:  # packed layers choose themselves
        yield
        return
    shape = (weight.shape[0], weight.shape[1])
    if not _faster_without_onednn(shape, weight.dtype, 1 << (rows - 1).bit_length(), torch.get_num_threads()):
        yield
        return
    with _onednn(False):
        yield


def pack_linear_layers(model: PreTrainedModel) -> bool:
    """Replace a model's frozen linear layers by packed ones if these are faster here; return whether they are.

    A head with tied embeddings is packed too: its weights are then in memory twice, but each token reads all of them.
    """
    if model.device.type != "cpu" or model.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return False
    if not mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    layers: list[tuple[str, Linear]] = [
        (name, module) for name, module in model.named_modules() if type(module) is Linear
    ]
    max_packed_rows = _best_max_packed_rows([layer for _, layer in layers]) if layers else 0
    if not max_packed_rows:
        return False
    for name, layer in layers:
        model.set_submodule(name, PackedLinear(layer, max_packed_rows))
        del layer.weight  # frees the weights even if the layer is referenced; only a tied embedding keeps them
    for parameter in model.parameters():
        if not parameter.is_mkldnn:
            parameter.data = parameter.data.clone()  # one tensor of the mapped file would keep all of it in memory
    return True


@contextmanager
def _onednn(enabled: bool) -> Iterator[None]:
    """Switch oneDNN on or off for the whole process; other threads may be slower meanwhile, but compute the same."""
    set_flags = cast("Callable[..., tuple[bool, ...]]", mkldnn.set_flags)
    previous, *_ = set_flags(_enabled=enabled, _fp32_precision=None)
    try:
        yield
    finally:
        set_flags(_enabled=previous, _fp32_precision=None)


@cache
def _faster_without_onednn(shape: tuple[int, int], dtype: torch.dtype, rows: int, threads: int) -> bool:
    weight, inputs = torch.zeros(shape, dtype=dtype), torch.ones(rows, shape[1], dtype=dtype)
    seconds = {}
    for enabled in (True, False):
        with _onednn(enabled):
            linear(inputs, weight)  # warm-up
            seconds[enabled] = _fastest(lambda: linear(inputs, weight))
    return seconds[True] > _MIN_SPEEDUP * seconds[False]


def _best_max_packed_rows(layers: Sequence[Linear]) -> int:
    """Return the fastest `max_packed_rows` of packed layers; 0 if unpacked layers are faster.

    Packed 32-bit weights, and 16-bit ones on a CPU with 16-bit units, are always faster. They get no trial: its
    outcome, and so the rounding of every answer, could depend on the load of the machine.
    """
    if layers[0].weight.dtype == torch.float32 or _has_units_for(layers[0].weight.dtype):
        return UNLIMITED_ROWS
    tried: list[Linear] = []
    for layer in sorted(layers, key=lambda layer: layer.weight.numel(), reverse=True):
        if sum(other.weight.nbytes for other in tried) < TRIAL_BYTES:
            tried.append(layer)
    with torch.inference_mode():
        unpacked = _answer_seconds(tried)
        packed = {
            rows: _answer_seconds([PackedLinear(layer, rows) for layer in tried])
            for rows in (SMALL_BATCH_ROWS, UNLIMITED_ROWS)
        }
    best = min(packed, key=packed.__getitem__)
    return best if unpacked > _MIN_SPEEDUP * packed[best] else 0


def _has_units_for(dtype: torch.dtype) -> bool:
    """Return whether this CPU multiplies this 16-bit type without conversion."""
    suffix = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(f"{unit}_{suffix}", False) for unit in ("avx512", "amx"))


def _answer_seconds(layers: Sequence[Linear]) -> float:
    """Return the seconds of an answer: the prompt in one pass, then one pass per token."""
    return _pass_seconds(layers, _PROMPT_ROWS) + _OUTPUT_ROWS * _pass_seconds(layers, 1)


def _pass_seconds(layers: Sequence[Linear], rows: int) -> float:
    inputs = [torch.ones(rows, layer.in_features, dtype=layers[0].weight.dtype) for layer in layers]

    def multiply() -> None:
        for layer, rows_of_ones in zip(layers, inputs, strict=True):
            layer(rows_of_ones)

    return _fastest(multiply)


def _fastest(work: Callable[[], object]) -> float:
    """Return the seconds of the fastest of some trials."""
    trials = []
    for _ in range(_TRIALS):
        start = time.perf_counter()
        work()
        trials.append(time.perf_counter() - start)
    return min(trials)
