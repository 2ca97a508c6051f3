"""Linear layers with LoRA whose branches are one step of autograd with the base's product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.lora import Linear, LoraLayer
from torch.nn.functional import linear

if TYPE_CHECKING:
    from torch import Tensor


class LoraLinear(Linear):  # type: ignore[misc]  # PEFT has no types
    """PEFT's layer by `lora_product`, for trainers that call the model themselves."""

    def forward(self, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
        """Return x W' + b + scale (x A') B', shape (..., out)."""
        if arguments or options or len(self.active_adapters) != 1 or self.disable_adapters or self.merged:
            out: Tensor = super().forward(x, *arguments, **options)
            return out
        tokens = x.flatten(0, -2)
        branch = branch_of(self, tokens, slice(None))
        return lora_product(tokens, self.get_base_layer(), [branch] if branch else []).view(*x.shape[:-1], -1)


@dataclass(frozen=True)
class Branch:
    """What one adapter adds to some tokens: scale (x A') B'.

    Attributes:
        tokens: the positions that it is for.
        dropped: their inputs after dropout; None if nothing is dropped.
    """

    tokens: slice
    dropped: Tensor | None
    a: Tensor
    b: Tensor
    scale: float


def branch_of(layer: LoraLayer, x: Tensor, tokens: slice) -> Branch | None:
    """Return what PEFT's layer adds to some tokens of x, shape (tokens, in); None if it has no active adapter."""
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if not names:
        return None
    (name,) = names
    dropout = layer.lora_dropout[name]
    plain = isinstance(dropout, torch.nn.Identity) or not dropout.training
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    return Branch(tokens, None if plain else dropout(x[tokens]), a, b, layer.scaling[name])


def lora_product(x: Tensor, base: torch.nn.Module, branches: Sequence[Branch]) -> Tensor:
    """Return x W' + b and what the branches add, shape (tokens, out).

    A and B are 32-bit parameters and are converted for each product. PEFT would convert x instead: larger, and
    multiplied at a third of the speed where the processor has 16-bit units. In 32-bit the results are PEFT's up to
    the order of sums.

    Args:
        x: shape (tokens, in).
        base: the frozen layer; of a quantised one the own product is used.
    """
    parts = [part for branch in branches for part in (branch.dropped, branch.a, branch.b)]
    spans = [(branch.tokens, branch.scale) for branch in branches]
    if type(base) is torch.nn.Linear:
        return _LoraProduct.apply(x, base.weight, base.bias, spans, *parts)  # type: ignore[no-any-return, no-untyped-call]
    out: Tensor = base(x)
    return out + _LoraProduct.apply(x, None, out.shape[-1], spans, *parts)  # type: ignore[no-any-return, no-untyped-call]


class _LoraProduct(torch.autograd.Function):
    """x W' + b with a frozen W, and per branch scale (x A') B'. Nothing is saved beside x and each x A'."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | int | None,
        spans: Sequence[tuple[slice, float]],
        *parts: Tensor | None,
    ) -> Tensor:
        out = x.new_zeros(len(x), bias) if weight is None else linear(x, weight, bias)  # type: ignore[arg-type]
        saved: list[Tensor | None] = [x, weight]
        for (tokens, scale), (dropped, a, b) in zip(spans, _triples(parts), strict=True):
            a16, b16 = a.to(x.dtype), (b * scale).to(x.dtype)
            inner = linear(x[tokens] if dropped is None else dropped, a16)
            out[tokens].addmm_(inner, b16.T)
            saved += [dropped, inner, a16, b16]
        ctx.save_for_backward(*saved)
        ctx.spans = spans
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *saved = ctx.saved_tensors
        out_gradient = gradients[0]
        x_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = torch.zeros_like(x) if weight is None else out_gradient @ weight
        found: list[Tensor | None] = [x_gradient, None, None, None]
        for place, (tokens, scale) in enumerate(ctx.spans):
            dropped, inner, a16, b16 = saved[4 * place : 4 * place + 4]
            wanted = ctx.needs_input_grad[4 + 3 * place : 7 + 3 * place]
            own_gradient = out_gradient[tokens]
            inner_gradient = own_gradient @ b16
            if dropped is None and x_gradient is not None:
                x_gradient[tokens].addmm_(inner_gradient, a16)
            inputs = x[tokens] if dropped is None else dropped
            found += [
                inner_gradient @ a16 if wanted[0] else None,
                (inner_gradient.T @ inputs).float() if wanted[1] else None,
                (own_gradient.T @ inner).float() * scale if wanted[2] else None,
            ]
        return tuple(found)


def _triples(parts: Sequence[Tensor | None]) -> list[tuple[Tensor | None, Tensor, Tensor]]:
    return [(parts[at], parts[at + 1], parts[at + 2]) for at in range(0, len(parts), 3)]  # type: ignore[misc]
