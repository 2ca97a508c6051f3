"""Linear layers whose 16-bit weights lie in oneDNN's own order, where this CPU multiplies faster from there.

Plain weights are read at half the speed of the memory: a CPU without 16-bit units unpacks them anew at each product,
and one with them finds their rows far apart. From oneDNN's blocked order few rows are multiplied at that speed. With
many rows, a prompt's, a CPU without 16-bit units is faster when it widens the weights to 32 bit a block at a time and
multiplies there. There is one copy of the weights either way.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Parameter
from torch.nn.functional import linear

FEW_ROWS, ALL_ROWS = 16, 2**63
"""Up to so many rows are multiplied from the packed weights as they are: on a CPU without 16-bit units, and with."""
BLOCK = 2048
"""So many outputs are widened to 32 bit at a time."""
GAIN = 1.2
"""Weights are packed only where an answer is faster by this factor."""
PROMPT_ROWS, NEW_ROWS = 64, 32
"""The answer by which that is judged."""
TRIALS, TRIAL_BYTES = 3, 2**29
"""So often, and with layers of so many bytes one after the other: a single one would be read from a cache."""


class PackedLinear(Linear):
    """A frozen layer that computes what `plain` does, up to rounding; it cannot be trained or saved.

    Up to `few` rows are multiplied from the packed weights, more in 32 bit.
    """

    def __init__(self, plain: Linear, few: int) -> None:
        super().__init__(plain.in_features, plain.out_features, bias=False, device="meta")
        packed = torch.ops.mkldnn._reorder_linear_weight(plain.weight.data, 1)
        self.weight = Parameter(packed, requires_grad=False)
        self.bias = plain.bias
        self.few = few

    def forward(self, given: Tensor) -> Tensor:
        """Return given W' + b, shape (..., out), in the precision of `given`."""
        if given.numel() <= self.few * self.in_features:
            out: Tensor = torch.ops.mkldnn._linear_pointwise(given, self.weight, self.bias, "none", [], "")
            return out
        wide, plain = given.float(), self.weight.to_dense()
        blocks = [linear(wide, plain[first : first + BLOCK].float()) for first in range(0, self.out_features, BLOCK)]
        sums = torch.cat(blocks, dim=-1)
        return (sums if self.bias is None else sums + self.bias).to(given.dtype)


def pack(model: Any) -> bool:
    """Pack a model's frozen linear layers in place if that is faster here; say whether it was done.

    A layer that shares its weights, as a head with the embedding, stays as it is: they would be there twice.
    """
    if model.device.type != "cpu" or model.dtype not in (torch.bfloat16, torch.float16):
        return False
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    shared = {id(one.weight) for one in model.modules() if isinstance(one, torch.nn.Embedding)}
    layers = [
        (name, one)
        for name, one in model.named_modules()
        if type(one) is Linear and id(one.weight) not in shared
    ]  # fmt: skip
    few = _few([one for _, one in layers]) if layers else 0
    if not few:
        return False
    for name, one in layers:
        model.set_submodule(name, PackedLinear(one, few))
        del one.weight  # lets go of the plain weights although somebody may hold the layer
    for left in model.parameters():
        if not left.is_mkldnn:
            left.data = left.data.clone()  # as long as one of them lies in the mapped file, all of the file stays
    return True


def _few(layers: Sequence[Linear]) -> int:
    """Return up to how many rows packed layers should multiply as they are; 0 where plain ones are faster."""
    tried: list[Linear] = []
    for one in sorted(layers, key=lambda one: one.weight.numel(), reverse=True):
        if sum(other.weight.nbytes for other in tried) < TRIAL_BYTES:
            tried.append(one)
    with torch.inference_mode():
        plain = _seconds(tried)
        packed = {few: _seconds([PackedLinear(one, few) for one in tried]) for few in (FEW_ROWS, ALL_ROWS)}
    best = min(packed, key=packed.__getitem__)
    return best if plain > GAIN * packed[best] else 0


def _seconds(layers: Sequence[Linear]) -> float:
    """How long an answer takes: its prompt once, its other tokens one by one."""
    return _least(layers, PROMPT_ROWS) + NEW_ROWS * _least(layers, 1)


def _least(layers: Sequence[Linear], rows: int) -> float:
    given = [torch.ones(rows, one.in_features, dtype=layers[0].weight.dtype) for one in layers]
    trials = []
    for _ in range(TRIALS):
        began = time.perf_counter()
        for one, what in zip(layers, given, strict=True):
            one(what)
        trials.append(time.perf_counter() - began)
    return min(trials)
