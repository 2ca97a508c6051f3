"""Linear layers with several adapters, each for a span of the pass's tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from torch.nn import Module

from bilora.training.lora_linear import lora_branches, lora_products

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer
    from torch import Tensor


@dataclass
class Spans:
    """The span of tokens of each adapter in the current pass."""

    by_adapter: dict[int, slice] = field(default_factory=dict)


class MixedLinear(Module):
    """A linear layer of the base with the LoRA layers of several adapters."""

    def __init__(self, base: Module, adapters: Mapping[int, LoraLayer], spans: Spans) -> None:
        """Combine the base's layer with LoRA layers (by adapter number); `spans` changes with every pass."""
        super().__init__()
        # In a tuple, so that they are not registered as submodules: they belong to other models.
        self.parts = base, adapters, spans

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output with each token's adapter, shape (..., out)."""
        return apply_linears(x, [self])[0]


def apply_linears(x: Tensor, layers: Sequence[Module]) -> list[Tensor]:
    """Return the outputs of layers with the same input, with or without adapters.

    Args:
        x: shape (..., in).
    """
    tokens = x.flatten(0, -2)
    parts = [layer.parts if isinstance(layer, MixedLinear) else (layer, {}, Spans()) for layer in layers]
    spans = dict(chain.from_iterable(layer_spans.by_adapter.items() for _, _, layer_spans in parts))
    branches = [
        lora_branches([adapters.get(number) for _, adapters, _ in parts], tokens, span)
        for number, span in spans.items()
    ]
    outs = lora_products(tokens, [base for base, _, _ in parts], list(chain(*branches)))
    return [out.view(*x.shape[:-1], -1) for out in outs]
