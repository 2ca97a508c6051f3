"""A linear layer with LoRA whose two branches are one step of autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.lora import Linear
from torch.nn.functional import linear

if TYPE_CHECKING:
    from torch import Tensor


class LoraLinear(Linear):  # type: ignore[misc]  # PEFT has no types
    """PEFT's layer, with the products in the precision of its input and nothing saved beside x and x A'.

    A and B are 32-bit parameters and are converted for each product. PEFT would convert the input instead: larger, and
    multiplied at a third of the speed where the processor has 16-bit units. In 32-bit the results are PEFT's up to
    the order of sums.
    """

    def forward(self, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
        """Return x W' + b + scale (x A') B', shape (..., out)."""
        names = self.active_adapters
        if arguments or options or len(names) != 1 or self.disable_adapters or self.merged:
            out: Tensor = super().forward(x, *arguments, **options)
            return out
        (name,), base = names, self.get_base_layer()
        if name not in self.lora_A:
            return base(x)  # type: ignore[no-any-return]
        dropout = self.lora_dropout[name]
        dropped = None if isinstance(dropout, torch.nn.Identity) or not self.training else dropout(x)
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        return _LoraProduct.apply(  # type: ignore[no-any-return, no-untyped-call]
            x, dropped, base.weight, base.bias, a, b, self.scaling[name]
        )


class _LoraProduct(torch.autograd.Function):
    """x W' + b + scale (x A') B' with a frozen W, where the LoRA branch may have its own input, after dropout."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
    ) -> Tensor:
        inputs = (x if dropped is None else dropped).flatten(0, -2)
        a16, b16 = a.to(x.dtype), (b * scale).to(x.dtype)
        inner = linear(inputs, a16)
        out = linear(x, weight, bias)
        out.view(-1, out.shape[-1]).addmm_(inner, b16.T)
        ctx.save_for_backward(inputs, inner, weight, a16, b16)
        ctx.scale, ctx.has_dropout = scale, dropped is not None
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, inner, weight, a16, b16 = ctx.saved_tensors
        shape = gradients[0].shape[:-1]
        out_gradient = gradients[0].flatten(0, -2)
        inner_gradient = out_gradient @ b16
        x_gradient = dropped_gradient = a_gradient = b_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = out_gradient @ weight
            if not ctx.has_dropout:
                x_gradient.addmm_(inner_gradient, a16)
            x_gradient = x_gradient.view(*shape, -1)
        if ctx.needs_input_grad[1]:
            dropped_gradient = (inner_gradient @ a16).view(*shape, -1)
        if ctx.needs_input_grad[4]:
            a_gradient = (inner_gradient.T @ inputs).float()
        if ctx.needs_input_grad[5]:
            b_gradient = (out_gradient.T @ inner).float() * ctx.scale
        return x_gradient, dropped_gradient, None, None, a_gradient, b_gradient, None
