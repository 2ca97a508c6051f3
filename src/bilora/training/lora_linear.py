"""Linear layers with LoRA, computed with the base's product as one autograd function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import torch
from peft.tuners.lora import Linear, LoraLayer

from bilora.inference.torch.products import add_product, product

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


class LoraLinear(Linear):  # type: ignore[misc]  # PEFT has no types
    """PEFT's LoRA layer, computed by `lora_products`, for trainers that call the model directly."""

    def forward(self, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
        """Return x W' + b + scale (x A') B', shape (..., out)."""
        if arguments or options or len(self.active_adapters) != 1 or self.disable_adapters or self.merged:
            out: Tensor = super().forward(x, *arguments, **options)
            return out
        tokens = x.flatten(0, -2)
        branches = lora_branches([self], tokens, slice(None))
        return lora_products(tokens, [self.get_base_layer()], branches)[0].view(*x.shape[:-1], -1)


@dataclass(frozen=True)
class _Addend:
    """The addend scale (x A') B' to the output of the layer with this index."""

    index: int
    a: Tensor
    b: Tensor
    scale: float


@dataclass(frozen=True)
class Branch:
    """The addends of one adapter to the outputs of layers with the same input.

    Attributes:
        tokens: the adapter's tokens.
        dropped: their inputs after dropout; None without dropout.
    """

    tokens: slice
    dropped: Tensor | None
    addends: Sequence[_Addend]


def lora_branches(layers: Sequence[LoraLayer | None], x: Tensor, tokens: slice) -> list[Branch]:
    """Return the branches of an adapter's PEFT layers: one branch, or with dropout one per layer.

    Args:
        layers: None for a layer without LoRA.
        x: the inputs of all tokens, shape (tokens, in).
        tokens: the adapter's tokens.
    """
    branches: list[Branch] = []
    addends_without_dropout: list[_Addend] = []
    for index, layer in enumerate(layers):
        names = [name for name in layer.active_adapters if name in layer.lora_A] if layer else []
        if not layer or not names:
            continue
        (name,) = names
        addend = _Addend(index, layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name])
        dropout = layer.lora_dropout[name]
        if isinstance(dropout, torch.nn.Identity) or not dropout.training:
            addends_without_dropout.append(addend)
        else:
            branches.append(Branch(tokens, dropout(x[tokens]), [addend]))
    return [*branches, Branch(tokens, None, addends_without_dropout)] if addends_without_dropout else branches


def lora_products(x: Tensor, bases: Sequence[Module], branches: Sequence[Branch]) -> list[Tensor]:
    """Return x W' + b of each base layer plus the addends of the branches, shape (tokens, out) each.

    A and B are float32 parameters that are converted to the precision of x for each product. (PEFT converts x, which is
    larger, and multiplies in float32.) The A matrices of a branch are stacked, because a product with few columns takes
    as long as reading x. In float32 the results equal PEFT's up to the order of sums.

    Args:
        x: shape (tokens, in).
        bases: the frozen layers; a quantized layer computes its product itself.
    """
    parts = [(branch.dropped, *chain.from_iterable((term.a, term.b) for term in branch.addends)) for branch in branches]
    quantized = [None if type(base) is torch.nn.Linear else cast("Tensor", base(x)) for base in bases]
    frozen = [
        (base.weight, base.bias, base.out_features) if out is None else (None, None, out.shape[-1])
        for base, out in zip(bases, quantized, strict=True)
    ]
    outs: tuple[Tensor, ...] = _LoraProducts.apply(x, frozen, branches, *chain(*parts))  # type: ignore[no-untyped-call]
    return [out if base is None else base + out for out, base in zip(outs, quantized, strict=True)]


class _LoraProducts(torch.autograd.Function):
    """x W' + b with a frozen W per layer, plus scale (x A') B' per branch.

    Forward: 1) the base's products; 2) per branch x A' with the stacked A, then the product with each B.
    Backward: 3) the gradient of x through W; 4) per branch the gradients of x, A and B.
    Saved are x, each x A', A and B.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        frozen: Sequence[tuple[Tensor | None, Tensor | None, int]],
        branches: Sequence[Branch],
        *_: Tensor | None,
    ) -> tuple[Tensor, ...]:
        outs = [
            x.new_zeros(len(x), width) if weight is None else product(x, weight, bias) for weight, bias, width in frozen
        ]
        saved: list[Tensor | None] = [x]
        for branch in branches:
            a16 = torch.cat([addend.a for addend in branch.addends]).to(x.dtype)
            b16 = [(addend.b * addend.scale).to(x.dtype) for addend in branch.addends]
            inner = product(x[branch.tokens] if branch.dropped is None else branch.dropped, a16.T.contiguous().T)
            columns = torch.split(inner, [len(addend.a) for addend in branch.addends], dim=1)
            for addend, b, part in zip(branch.addends, b16, columns, strict=True):
                add_product(outs[addend.index][branch.tokens], part, b)
            saved += [branch.dropped, inner, a16, *b16]
        ctx.save_for_backward(*saved)
        ctx.weights = [weight for weight, *_ in frozen]  # frozen, so autograd need not check their versions
        ctx.branches = [
            (branch.tokens, [(addend.index, len(addend.a), addend.scale) for addend in branch.addends])
            for branch in branches
        ]
        return tuple(outs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        x_gradient = _frozen_gradient(x, ctx.weights, gradients) if ctx.needs_input_grad[0] else None
        input_gradients: list[Tensor | None] = [x_gradient, None, None]
        for tokens, addends in ctx.branches:
            (dropped, inner, a16, *b16), saved = saved[: 3 + len(addends)], saved[3 + len(addends) :]
            out_gradients = [gradients[index][tokens] for index, _, _ in addends]
            ranks = [rank for _, rank, _ in addends]
            inner_gradient = torch.cat([product(out, b.T) for out, b in zip(out_gradients, b16, strict=True)], dim=1)
            if dropped is None and x_gradient is not None:
                add_product(x_gradient[tokens], inner_gradient, a16.T)
            a_gradients = product(inner_gradient.T, (x[tokens] if dropped is None else dropped).T).float()
            input_gradients.append(None if dropped is None else product(inner_gradient, a16.T))
            for (_, _, scale), out, part, a_gradient in zip(
                addends, out_gradients, torch.split(inner, ranks, dim=1), torch.split(a_gradients, ranks), strict=True
            ):
                input_gradients += [
                    a_gradient,
                    product(part.T, out.T).T.to(torch.float32, memory_format=torch.contiguous_format) * scale,
                ]
        return tuple(input_gradients)


def _frozen_gradient(x: Tensor, weights: Sequence[Tensor | None], gradients: Sequence[Tensor]) -> Tensor:
    """Return the gradient of x through the frozen layers."""
    x_gradient: Tensor | None = None
    for weight, gradient in zip(weights, gradients, strict=True):
        if weight is None:
            continue
        if x_gradient is None:
            x_gradient = product(gradient, weight.T)
        else:
            add_product(x_gradient, gradient, weight.T)
    return torch.zeros_like(x) if x_gradient is None else x_gradient
