"""Linear layers of the base beside those of several adapters, each of which has some of a pass's tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from torch.nn import Module

from bilora.training.lora_linear import branches_of, lora_products

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer
    from torch import Tensor


@dataclass
class Spans:
    """Which tokens of the pass at hand are whose: each adapter has at most one span."""

    of_adapters: dict[int, slice] = field(default_factory=dict)


class MixedLinear(Module):
    """A linear layer of the base with that of every adapter beside it."""

    def __init__(self, base: Module, adapters: Mapping[int, LoraLayer], spans: Spans) -> None:
        """Take the layers, those of adapters by the adapters' places, and what says whose the tokens are."""
        super().__init__()
        # In a tuple: they are modules of other models, not of this one.
        self.parts = base, adapters, spans

    def forward(self, x: Tensor) -> Tensor:
        """Return the product of each token with the base's weight and its adapter's, shape (..., out)."""
        return products(x, [self])[0]


def products(x: Tensor, layers: Sequence[Module]) -> list[Tensor]:
    """Return the outputs of layers with the same input, some of which may be mixed ones.

    Args:
        x: shape (..., in).
    """
    tokens = x.flatten(0, -2)
    parts = [layer.parts if isinstance(layer, MixedLinear) else (layer, {}, Spans()) for layer in layers]
    spans = dict(chain.from_iterable(one.of_adapters.items() for _, _, one in parts))
    branches = [
        branches_of([adapters.get(number) for _, adapters, _ in parts], tokens, span) for number, span in spans.items()
    ]
    outs = lora_products(tokens, [base for base, _, _ in parts], list(chain(*branches)))
    return [out.view(*x.shape[:-1], -1) for out in outs]
