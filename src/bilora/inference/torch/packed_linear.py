"""A linear layer with its weights in oneDNN's blocked layout.

A CPU without 16-bit units converts unpacked 16-bit weights for each product, and a CPU with them reads rows that are
far from each other in memory: both reach half of the memory's speed. The blocked layout reaches full speed for small
batches. For a prompt's many rows a CPU without 16-bit units is faster if it converts the weights to 32-bit, block by
block. torch leaves unpacked 32-bit weights to MKL, which repacks them for each product and has half of oneDNN's speed
on AMD's processors. There is one copy of the weights in all cases.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Linear, Parameter
from torch.nn.functional import linear

BLOCK_OUTPUTS = 2048
"""Number of outputs that are converted to 32-bit at a time."""


class PackedLinear(Linear):
    """A frozen linear layer with packed weights; it cannot be trained or saved."""

    def __init__(self, layer: Linear, max_packed_rows: int) -> None:
        """Pack `layer`; up to `max_packed_rows` rows use the packed weights, more rows are multiplied in 32-bit."""
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.data, 1)
        self.weight = Parameter(packed, requires_grad=False)
        self.bias = layer.bias
        self.max_packed_rows = max_packed_rows

    def forward(self, inputs: Tensor) -> Tensor:
        """Return inputs W' + b, shape (..., out), in the precision of `inputs`."""
        if inputs.numel() <= self.max_packed_rows * self.in_features:
            out: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self.weight, self.bias, "none", [], "")
            return out
        inputs32, unpacked = inputs.float(), self.weight.to_dense()
        starts = range(0, self.out_features, BLOCK_OUTPUTS)
        sums = torch.cat([linear(inputs32, unpacked[at : at + BLOCK_OUTPUTS].float()) for at in starts], dim=-1)
        return (sums if self.bias is None else sums + self.bias).to(inputs.dtype)
