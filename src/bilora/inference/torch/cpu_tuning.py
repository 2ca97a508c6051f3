"""Choice of the faster matrix products on this CPU: plain or packed weights, with or without oneDNN, by timing."""

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

FEW_ROWS, ALL_ROWS = 16, 2**63
"""Up to how many rows packed weights are multiplied as they are: on a CPU without 16-bit units, and with them."""
TRIAL_BYTES = 2**29
"""How large the layers of a trial are together: a single one would be read from a cache."""

_MIN_SPEEDUP = 1.2
"""The default is replaced only where the alternative is faster by this factor."""
_TRIALS = 3
_PROMPT_ROWS, _OUTPUT_ROWS = 64, 32
"""The lengths of the prompt and of the answer that are timed."""
_MAX_TRIED_ROWS = 16
"""With more rows oneDNN is used without a trial: without it they may take a thousand times as long."""


@contextmanager
def onednn_if_faster(weight: torch.Tensor, rows: int) -> Iterator[None]:
    """Run a forward pass over `rows` tokens with oneDNN on or off, whichever multiplies `weight` faster.

    oneDNN wins with many tokens and may lose with few: on x86 without 16-bit units it unpacks a 16-bit weight again for
    each token.
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
    """Replace a model's frozen linear layers by packed ones if those are faster here; return whether they are.

    A head that shares its weights with the embedding, which needs them plain, is packed too: then they are in memory
    twice, but each token reads all of them.
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
        del layer.weight  # frees the plain weights, which only a tied embedding keeps, even if the layer is referenced
    for parameter in model.parameters():
        if not parameter.is_mkldnn:
            parameter.data = parameter.data.clone()  # one tensor in the mapped file would keep all of it in memory
    return True


@contextmanager
def _onednn(enabled: bool) -> Iterator[None]:
    """Switch oneDNN for the whole process: another thread may meanwhile multiply more slowly, but not wrongly."""
    set_flags = cast("Callable[..., tuple[bool, ...]]", mkldnn.set_flags)
    before, *_ = set_flags(_enabled=enabled, _fp32_precision=None)
    try:
        yield
    finally:
        set_flags(_enabled=before, _fp32_precision=None)


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
    """Return up to how many rows packed layers should multiply as they are; 0 where plain layers are faster.

    A CPU multiplies packed 32-bit weights, and with 16-bit units those of 16 bits, faster whatever the number of rows,
    so it needs no trial, whose outcome, and with it the rounding of every answer, might depend on what else the machine
    does.
    """
    if layers[0].weight.dtype == torch.float32 or _has_units_for(layers[0].weight.dtype):
        return ALL_ROWS
    tried: list[Linear] = []
    for layer in sorted(layers, key=lambda layer: layer.weight.numel(), reverse=True):
        if sum(other.weight.nbytes for other in tried) < TRIAL_BYTES:
            tried.append(layer)
    with torch.inference_mode():
        plain = _answer_seconds(tried)
        packed = {rows: _answer_seconds([PackedLinear(one, rows) for one in tried]) for rows in (FEW_ROWS, ALL_ROWS)}
    best = min(packed, key=packed.__getitem__)
    return best if plain > _MIN_SPEEDUP * packed[best] else 0


def _has_units_for(dtype: torch.dtype) -> bool:
    """Return whether this CPU multiplies numbers of this 16-bit type without converting them."""
    suffix = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(f"{unit}_{suffix}", False) for unit in ("avx512", "amx"))


def _answer_seconds(layers: Sequence[Linear]) -> float:
    """Return how long an answer takes: its prompt in one pass, then one pass per token."""
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
        began = time.perf_counter()
        work()
        trials.append(time.perf_counter() - began)
    return min(trials)
