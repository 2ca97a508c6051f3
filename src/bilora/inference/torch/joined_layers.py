"""Attention and MLP of the Llama family with fewer, larger products: projections of the same input become one.

A step of few tokens consists of many small products, whose calls cost as much as their arithmetic, and those of the
adapters beside them twice as many. Phi-3's layers already have this form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.nn import Linear, Module, Parameter
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP, rotate_half
from transformers.models.mistral.modeling_mistral import MistralAttention, MistralMLP
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention, Qwen2MLP

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from bilora.inference.torch.kv_cache import KVCache


@dataclass(frozen=True)
class Part:
    """One linear layer of the model: these outputs of `module`, a layer that may have more."""

    module: str
    inputs: int
    outputs: slice


class JoinedAttention(Module):
    """Attention whose queries, keys and values are one product; it computes what the model's own does."""

    joined = "qkv_proj"

    def __init__(self, plain: LlamaAttention) -> None:
        """Take over the weights of `plain`, which loses them."""
        super().__init__()
        self.layer_idx, self.head_dim, self.scaling = plain.layer_idx, plain.head_dim, plain.scaling
        self.num_key_value_groups, self.is_causal = plain.num_key_value_groups, plain.is_causal
        self.key_heads = plain.k_proj.out_features // plain.head_dim
        self.qkv_proj, self.parts = _join(plain, ("q_proj", "k_proj", "v_proj"))
        self.o_proj = plain.o_proj

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        past_key_values: KVCache | None = None,
        **_: object,
    ) -> tuple[Tensor, None]:
        """Return the attention's output, shape (rows, tokens, hidden size), as transformers' decoder layers call it."""
        rows, tokens, _hidden = hidden_states.shape
        heads = self.qkv_proj(hidden_states).view(rows, tokens, -1, self.head_dim).transpose(1, 2)
        cos, sin = (angle.unsqueeze(1) for angle in position_embeddings)
        plain, values = heads[:, : -self.key_heads], heads[:, -self.key_heads :]
        rotated = plain * cos + rotate_half(plain) * sin
        queries, keys = rotated[:, : -self.key_heads], rotated[:, -self.key_heads :]
        if past_key_values is not None:
            keys, values = past_key_values.update(keys, values, self.layer_idx)
        attended, _weights = sdpa_attention_forward(self, queries, keys, values, attention_mask, scaling=self.scaling)
        return self.o_proj(attended.reshape(rows, tokens, -1)), None


class JoinedMLP(Module):
    """A gated MLP whose gate and input are one product; it computes what the model's own does."""

    joined = "gate_up_proj"

    def __init__(self, plain: LlamaMLP) -> None:
        """Take over the weights of `plain`, which loses them."""
        super().__init__()
        self.gate_up_proj, self.parts = _join(plain, ("gate_proj", "up_proj"))
        self.down_proj, self.act_fn = plain.down_proj, plain.act_fn

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return the MLP's output, shape (rows, tokens, hidden size)."""
        gate, up = self.gate_up_proj(hidden_states).chunk(2, dim=-1)
        return cast("Tensor", self.down_proj(self.act_fn(gate) * up))


_JOINED: Mapping[type[Module], type[JoinedAttention | JoinedMLP]] = {
    **dict.fromkeys((LlamaAttention, MistralAttention, Qwen2Attention), JoinedAttention),
    **dict.fromkeys((LlamaMLP, MistralMLP, Qwen2MLP), JoinedMLP),
}


def join_layers(model: PreTrainedModel) -> None:
    """Replace the attention and the MLP of each decoder layer by joined ones, where their class is known."""
    for name, module in list(model.named_modules()):
        if joined := _JOINED.get(type(module)):
            model.set_submodule(name, joined(module))


def part_of(modules: Mapping[str, Module], name: str) -> Part | None:
    """Return where the linear layer of this name is in a model's `modules`; None if the model has none."""
    parent, _, leaf = name.rpartition(".")
    holder = modules.get(parent)
    if isinstance(holder, JoinedAttention | JoinedMLP) and leaf in holder.parts:
        joined = f"{parent}.{holder.joined}"
        return Part(joined, cast("Linear", modules[joined]).in_features, holder.parts[leaf])
    layer = modules.get(name)
    return Part(name, layer.in_features, slice(0, layer.out_features)) if isinstance(layer, Linear) else None


def _join(parent: Module, names: Sequence[str]) -> tuple[Linear, dict[str, slice]]:
    """Return one frozen layer in place of several of the same input, and which of its outputs are whose."""
    layers = [cast("Linear", getattr(parent, name)) for name in names]
    ends = list(accumulate(layer.out_features for layer in layers))
    joined = Linear(layers[0].in_features, ends[-1], bias=False, device="meta")
    joined.weight = Parameter(torch.cat([layer.weight.data for layer in layers]), requires_grad=False)
    biases = [layer.bias.data for layer in layers if layer.bias is not None]
    if biases:
        joined.bias = Parameter(torch.cat(biases), requires_grad=False)
    for layer in layers:
        del layer.weight  # frees it even if the layer is referenced elsewhere
    return joined, {name: slice(*place) for name, place in zip(names, pairwise((0, *ends)), strict=True)}
