"""Products with frozen weights, in 32-bit on a CPU by oneDNN.

torch leaves 32-bit products to MKL, which multiplies at half of oneDNN's speed on AMD's processors (`python
perf/training_parts.py`). Those in 16-bit go to oneDNN anyway, and a GPU has its own library.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.backends import mkldnn
from torch.nn import Linear, Module
from torch.nn.functional import linear

_ONEDNN: bool = mkldnn.is_available()  # type: ignore[no-untyped-call]


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W' + b, shape (..., out); no gradient reaches any of them.

    Args:
        x: shape (..., in).
        weight: shape (out, in); it may be the transposed view of another one.
    """
    if _by_onednn(x):
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return out
    return linear(x, weight, bias)


def add_product(out: Tensor, x: Tensor, weight: Tensor) -> None:
    """Add x W' to a tensor of two dimensions."""
    if _by_onednn(x):
        out.add_(product(x, weight))
    else:
        out.addmm_(x, weight.T)


def _by_onednn(x: Tensor) -> bool:
    return _ONEDNN and x.dtype == torch.float32 and x.device.type == "cpu"


class FrozenLinear(Linear):
    """A linear layer on the weights of another one, for inference."""

    def __init__(self, plain: Linear) -> None:
        """Share the weights of `plain`."""
        super().__init__(plain.in_features, plain.out_features, bias=False, device="meta")
        self.weight, self.bias = plain.weight, plain.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Return inputs W' + b, shape (..., out)."""
        return product(inputs, self.weight, self.bias)


def freeze_linear_layers(model: Module) -> None:
    """Replace a model's linear layers by frozen ones."""
    for name, module in list(model.named_modules()):
        if type(module) is Linear:
            model.set_submodule(name, FrozenLinear(module))
