"""A linear layer that keeps its weights in oneDNN's blocked layout.

A CPU without 16-bit units unpacks plain 16-bit weights again for each product, and one with them finds their rows far
apart: both read them at half the speed of the memory. From the blocked layout few rows are multiplied at full speed.
With many rows, a prompt's, a CPU without 16-bit units is faster when it converts the weights to 32 bit block by block
and multiplies those. Plain 32-bit weights are left to MKL, which repacks them for each product and multiplies at half
of oneDNN's speed on AMD's processors. There is one copy of the weights either way.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Linear, Parameter
from torch.nn.functional import linear

BLOCK_OUTPUTS = 2048
"""How many outputs are converted to 32 bit at a time."""


class PackedLinear(Linear):
    """A frozen layer that computes what a plain one does, up to rounding; it cannot be trained or saved."""

    def __init__(self, plain: Linear, max_packed_rows: int) -> None:
        """Pack `plain`; up to `max_packed_rows` rows are multiplied from the packed weights, more in 32-bit."""
        super().__init__(plain.in_features, plain.out_features, bias=False, device="meta")
        packed = torch.ops.mkldnn._reorder_linear_weight(plain.weight.data, 1)
        self.weight = Parameter(packed, requires_grad=False)
        self.bias = plain.bias
        self.max_packed_rows = max_packed_rows

    def forward(self, inputs: Tensor) -> Tensor:
        """Return inputs W' + b, shape (..., out), in the precision of `inputs`."""
        if inputs.numel() <= self.max_packed_rows * self.in_features:
            out: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self.weight, self.bias, "none", [], "")
            return out
        inputs32, plain = inputs.float(), self.weight.to_dense()
        starts = range(0, self.out_features, BLOCK_OUTPUTS)
        sums = torch.cat([linear(inputs32, plain[at : at + BLOCK_OUTPUTS].float()) for at in starts], dim=-1)
        return (sums if self.bias is None else sums + self.bias).to(inputs.dtype)
