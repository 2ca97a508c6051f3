"""Linear layers with LoRA whose branches are one step of autograd with the base's product."""

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
    """PEFT's layer by `lora_products`, for trainers that call the model themselves."""

    def forward(self, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
        """Return x W' + b + scale (x A') B', shape (..., out)."""
        if arguments or options or len(self.active_adapters) != 1 or self.disable_adapters or self.merged:
            out: Tensor = super().forward(x, *arguments, **options)
            return out
        tokens = x.flatten(0, -2)
        branches = branches_of([self], tokens, slice(None))
        return lora_products(tokens, [self.get_base_layer()], branches)[0].view(*x.shape[:-1], -1)


@dataclass(frozen=True)
class _Addend:
    """What a branch adds to the output of one layer, which is named by its place: scale (x A') B'."""

    place: int
    a: Tensor
    b: Tensor
    scale: float


@dataclass(frozen=True)
class Branch:
    """What one adapter adds to the outputs of layers that have the same input.

    Attributes:
        tokens: the positions that it is for.
        dropped: their inputs after dropout; None if nothing is dropped.
    """

    tokens: slice
    dropped: Tensor | None
    addends: Sequence[_Addend]


def branches_of(layers: Sequence[LoraLayer | None], x: Tensor, tokens: slice) -> list[Branch]:
    """Return what PEFT's layers of one adapter add to some tokens of x, shape (tokens, in).

    It is one branch, or one per layer if each drops inputs of its own.

    Args:
        layers: None at the place of a layer that the adapter has not.
    """
    branches: list[Branch] = []
    together: list[_Addend] = []
    for place, layer in enumerate(layers):
        names = [name for name in layer.active_adapters if name in layer.lora_A] if layer else []
        if not layer or not names:
            continue
        (name,) = names
        addend = _Addend(place, layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name])
        dropout = layer.lora_dropout[name]
        if isinstance(dropout, torch.nn.Identity) or not dropout.training:
            together.append(addend)
        else:
            branches.append(Branch(tokens, dropout(x[tokens]), [addend]))
    return [*branches, Branch(tokens, None, together)] if together else branches


def lora_products(x: Tensor, bases: Sequence[Module], branches: Sequence[Branch]) -> list[Tensor]:
    """Return x W' + b of each base layer and what the branches add to it, shape (tokens, out) each.

    A and B are 32-bit parameters and are converted for each product. PEFT would convert x instead: larger, and
    multiplied at a third of the speed where the processor has 16-bit units. The A's of a branch are one matrix, since
    a product of few columns takes as long as reading x. In 32-bit the results are PEFT's up to the order of sums.

    Args:
        x: shape (tokens, in).
        bases: the frozen layers; of a quantised one the own product is used.
    """
    parts = [(branch.dropped, *chain.from_iterable((one.a, one.b) for one in branch.addends)) for branch in branches]
    own = [None if type(base) is torch.nn.Linear else cast("Tensor", base(x)) for base in bases]
    frozen = [
        (base.weight, base.bias, base.out_features) if out is None else (None, None, out.shape[-1])
        for base, out in zip(bases, own, strict=True)
    ]
    found: tuple[Tensor, ...] = _LoraProducts.apply(x, frozen, branches, *chain(*parts))  # type: ignore[no-untyped-call]
    return [new if out is None else out + new for new, out in zip(found, own, strict=True)]


class _LoraProducts(torch.autograd.Function):
    """Per layer x W' + b with a frozen W, and per branch scale (x A') B'. Saved are x, each x A', and the weights."""

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
            a16 = torch.cat([one.a for one in branch.addends]).to(x.dtype)
            b16 = [(one.b * one.scale).to(x.dtype) for one in branch.addends]
            inner = product(x[branch.tokens] if branch.dropped is None else branch.dropped, a16.T.contiguous().T)
            columns = torch.split(inner, [len(one.a) for one in branch.addends], dim=1)
            for one, b, part in zip(branch.addends, b16, columns, strict=True):
                add_product(outs[one.place][branch.tokens], part, b)
            saved += [branch.dropped, inner, a16, *b16]
        ctx.save_for_backward(*saved)
        ctx.weights = [weight for weight, *_ in frozen]  # frozen: nothing to version
        ctx.branches = [
            (branch.tokens, [(one.place, len(one.a), one.scale) for one in branch.addends]) for branch in branches
        ]
        return tuple(outs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        x_gradient = _frozen_gradient(x, ctx.weights, gradients) if ctx.needs_input_grad[0] else None
        found: list[Tensor | None] = [x_gradient, None, None]
        for tokens, addends in ctx.branches:
            (dropped, inner, a16, *b16), saved = saved[: 3 + len(addends)], saved[3 + len(addends) :]
            own = [gradients[place][tokens] for place, _, _ in addends]
            ranks = [rank for _, rank, _ in addends]
            inner_gradient = torch.cat([product(out, b.T) for out, b in zip(own, b16, strict=True)], dim=1)
            if dropped is None and x_gradient is not None:
                add_product(x_gradient[tokens], inner_gradient, a16.T)
            a_gradients = product(inner_gradient.T, (x[tokens] if dropped is None else dropped).T).float()
            found.append(None if dropped is None else product(inner_gradient, a16.T))
            for (_, _, scale), out, part, a_gradient in zip(
                addends, own, torch.split(inner, ranks, dim=1), torch.split(a_gradients, ranks), strict=True
            ):
                found += [
                    a_gradient,
                    product(part.T, out.T).T.to(torch.float32, memory_format=torch.contiguous_format) * scale,
                ]
        return tuple(found)


def _frozen_gradient(x: Tensor, weights: Sequence[Tensor | None], gradients: Sequence[Tensor]) -> Tensor:
    """Return the gradient of x through the frozen layers."""
    found: Tensor | None = None
    for weight, gradient in zip(weights, gradients, strict=True):
        if weight is None:
            continue
        if found is None:
            found = product(gradient, weight.T)
        else:
            add_product(found, gradient, weight.T)
    return torch.zeros_like(x) if found is None else found
