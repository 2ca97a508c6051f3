"""Fused projections for models of the Llama family: query, key and value in one product, gate and up in one.

In a step of a single token the calls of small products cost as much as their arithmetic, and an adapter adds two calls
per layer. Phi-3's layers are fused already.
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
class LayerSlice:
    """The outputs of a fused layer, `module`, that belong to one linear layer of the model."""

    module: str
    inputs: int
    outputs: slice


class FusedAttention(Module):
    """Attention with queries, keys and values in one product; equal to the model's attention."""

    fused = "qkv_proj"

    def __init__(self, attention: LlamaAttention) -> None:
        """Move the weights of `attention` into this module."""
        super().__init__()
        self.layer_idx, self.head_dim, self.scaling = attention.layer_idx, attention.head_dim, attention.scaling
        self.num_key_value_groups, self.is_causal = attention.num_key_value_groups, attention.is_causal
        self.key_heads = attention.k_proj.out_features // attention.head_dim
        self.qkv_proj, self.slices = _fuse(attention, ("q_proj", "k_proj", "v_proj"))
        self.o_proj = attention.o_proj

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        past_key_values: KVCache | None = None,
        cache: KVCache | None = None,
        **_: object,
    ) -> tuple[Tensor, None]:
        """Return the output, shape (rows, tokens, hidden size), with the signature of transformers' attention."""
        rows, tokens, _hidden = hidden_states.shape
        heads = self.qkv_proj(hidden_states).view(rows, tokens, -1, self.head_dim).transpose(1, 2)
        cos, sin = (angle.unsqueeze(1) for angle in position_embeddings)
        unrotated, values = heads[:, : -self.key_heads], heads[:, -self.key_heads :]
        rotated = unrotated * cos + rotate_half(unrotated) * sin
        queries, keys = rotated[:, : -self.key_heads], rotated[:, -self.key_heads :]
        cache = past_key_values if cache is None else cache  # transformers 5.24 renamed it
        if cache is not None:
            keys, values = cache.update(keys, values, self.layer_idx)
        attended, _weights = sdpa_attention_forward(self, queries, keys, values, attention_mask, scaling=self.scaling)
        return self.o_proj(attended.reshape(rows, tokens, -1)), None


class FusedMLP(Module):
    """A gated MLP with gate and up projection in one product; equal to the model's MLP."""

    fused = "gate_up_proj"

    def __init__(self, mlp: LlamaMLP) -> None:
        """Move the weights of `mlp` into this module."""
        super().__init__()
        self.gate_up_proj, self.slices = _fuse(mlp, ("gate_proj", "up_proj"))
        self.down_proj, self.act_fn = mlp.down_proj, mlp.act_fn

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return the output, shape (rows, tokens, hidden size)."""
        gate, up = self.gate_up_proj(hidden_states).chunk(2, dim=-1)
        return cast("Tensor", self.down_proj(self.act_fn(gate) * up))


_FUSED: Mapping[type[Module], type[FusedAttention | FusedMLP]] = {
    **dict.fromkeys((LlamaAttention, MistralAttention, Qwen2Attention), FusedAttention),
    **dict.fromkeys((LlamaMLP, MistralMLP, Qwen2MLP), FusedMLP),
}


def fuse_layers(model: PreTrainedModel) -> None:
    """Replace the attention and the MLP of each decoder layer by fused ones, if their class is supported."""
    for name, module in list(model.named_modules()):
        if fused := _FUSED.get(type(module)):
            model.set_submodule(name, fused(module))


def find_layer(modules: Mapping[str, Module], name: str) -> LayerSlice | None:
    """Return the location of the linear layer with this name in a model's `modules`; None if there is none."""
    parent_name, _, leaf = name.rpartition(".")
    parent = modules.get(parent_name)
    if isinstance(parent, FusedAttention | FusedMLP) and leaf in parent.slices:
        fused = f"{parent_name}.{parent.fused}"
        return LayerSlice(fused, cast("Linear", modules[fused]).in_features, parent.slices[leaf])
    layer = modules.get(name)
    return LayerSlice(name, layer.in_features, slice(0, layer.out_features)) if isinstance(layer, Linear) else None


def _fuse(parent: Module, names: Sequence[str]) -> tuple[Linear, dict[str, slice]]:
    """Return one frozen layer for several of the same input, and the outputs of each (name → slice)."""
    layers = [cast("Linear", getattr(parent, name)) for name in names]
    ends = list(accumulate(layer.out_features for layer in layers))
    fused = Linear(layers[0].in_features, ends[-1], bias=False, device="meta")
    fused.weight = Parameter(torch.cat([layer.weight.data for layer in layers]), requires_grad=False)
    biases = [layer.bias.data for layer in layers if layer.bias is not None]
    if biases:
        fused.bias = Parameter(torch.cat(biases), requires_grad=False)
    for layer in layers:
        del layer.weight  # frees it even if the layer is referenced elsewhere
    return fused, {name: slice(*bounds) for name, bounds in zip(names, pairwise((0, *ends)), strict=True)}
