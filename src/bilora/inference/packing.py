"""Linear layers whose 16-bit weights lie in oneDNN's own order, where this CPU multiplies faster from there.

A CPU without 16-bit units unpacks plain weights anew at each product, at half the speed of its memory. From
oneDNN's blocked order it reaches that speed with few rows; with many rows, a prompt's, it is faster to widen the
weights to 32 bit a block at a time and to multiply there. There is one copy of the weights either way.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Parameter
from torch.nn.functional import linear

FEW_ROWS = 16
"""Up to so many rows are multiplied from the packed weights as they are."""
BLOCK = 2048
"""So many outputs are widened to 32 bit at a time."""
GAIN = 1.2
"""Weights are packed only where an answer is faster by this factor."""
PROMPT_ROWS, NEW_ROWS = 64, 32
"""The answer by which that is judged."""
TRIALS = 3


class PackedLinear(Linear):
    """A frozen layer that computes what `plain` does, up to rounding; it cannot be trained or saved."""

    def __init__(self, plain: Linear) -> None:
        super().__init__(plain.in_features, plain.out_features, bias=False, device="meta")
        packed = torch.ops.mkldnn._reorder_linear_weight(plain.weight.data, 1)
        self.weight = Parameter(packed, requires_grad=False)
        self.bias = plain.bias

    def forward(self, given: Tensor) -> Tensor:
        """Return given W' + b, shape (..., out), in the precision of `given`."""
        if given.numel() <= FEW_ROWS * self.in_features:
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
    if not layers or not _faster(max((one for _, one in layers), key=lambda one: one.weight.numel())):
        return False
    for name, one in layers:
        model.set_submodule(name, PackedLinear(one))
        del one.weight  # lets go of the plain weights although somebody may hold the layer
    for left in model.parameters():
        if not left.is_mkldnn:
            left.data = left.data.clone()  # as long as one of them lies in the mapped file, all of the file stays
    return True


def _faster(plain: Linear) -> bool:
    packed = PackedLinear(plain)
    prompt, new = (torch.ones(rows, plain.in_features, dtype=plain.weight.dtype) for rows in (PROMPT_ROWS, 1))

    def seconds(layer: Linear) -> float:
        return _least(layer, prompt) + NEW_ROWS * _least(layer, new)

    with torch.inference_mode():
        return seconds(plain) > GAIN * seconds(packed)


def _least(layer: Linear, given: Tensor) -> float:
    trials = []
    for _ in range(TRIALS):
        began = time.perf_counter()
        layer(given)
        trials.append(time.perf_counter() - began)
    return min(trials)
