"""Products with frozen weights, computed by oneDNN in 32-bit on a CPU.

torch uses MKL for 32-bit products, which has half of oneDNN's speed on AMD's processors (`python
perf/training_parts.py`). For 16-bit products it uses oneDNN already.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.backends import mkldnn
from torch.nn import Linear, Module
from torch.nn.functional import linear

_ONEDNN: bool = mkldnn.is_available()  # type: ignore[no-untyped-call]


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W' + b, shape (..., out), without gradients.

    Args:
        x: shape (..., in).
        weight: shape (out, in); it may be a transposed view.
    """
    if _by_onednn(x):
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return out
    return linear(x, weight, bias)


def add_product(out: Tensor, x: Tensor, weight: Tensor) -> None:
    """Add x W' to `out`, a tensor of two dimensions."""
    if _by_onednn(x):
        out.add_(product(x, weight))
    else:
        out.addmm_(x, weight.T)


def _by_onednn(x: Tensor) -> bool:
    return _ONEDNN and x.dtype == torch.float32 and x.device.type == "cpu"


class FrozenLinear(Linear):
    """A linear layer for inference that shares the weights of another one."""

    def __init__(self, layer: Linear) -> None:
        """Share the weights of `layer`."""
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Return inputs W' + b, shape (..., out)."""
        return product(inputs, self.weight, self.bias)


def freeze_linear_layers(model: Module) -> None:
    """Replace a model's linear layers by frozen ones."""
    for name, module in list(model.named_modules()):
        if type(module) is Linear:
            model.set_submodule(name, FrozenLinear(module))
