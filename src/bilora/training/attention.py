"""Causal attention over short rows in bfloat16, as plain products: torch's own kernel takes two to three times as long
for its backward pass on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_NAME = "bilora_short_rows"
_MAX_LENGTH = 1024
"""Longer rows are faster with torch's kernel, which skips the half of the scores that causality masks."""


@contextmanager
def short_row_attention(model: PreTrainedModel) -> Iterator[None]:
    """Use this module's attention in the model's forward passes, where it is faster."""
    before = model.config._attn_implementation
    model.config._attn_implementation = _NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Return what transformers' attention functions do: (rows, length, heads, head size), and no weights."""
    length = query.shape[2]
    special = attention_mask is not None or dropout or scaling is None or options.get("position_bias") is not None
    if special or query.dtype != torch.bfloat16 or not 1 < length == key.shape[2] <= _MAX_LENGTH:
        out: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
        return out
    attended: Tensor = _CausalAttention.apply(query, key, value, scaling)  # type: ignore[no-untyped-call]
    return attended.transpose(1, 2).contiguous(), None


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, sdpa_mask)


class _CausalAttention(torch.autograd.Function):
    """softmax(q k' scale) v per head; the heads that share keys are rows of one product.

    The probabilities, the largest tensor, are not saved but computed again in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        grouped, keys, values = _grouped(query, key), key.flatten(0, 1), value.flatten(0, 1)
        ctx.save_for_backward(grouped, keys, values)
        ctx.scale, ctx.key_shape = scale, key.shape
        return torch.bmm(_probabilities(grouped, keys, scale), values).view(query.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        grouped, keys, values = ctx.saved_tensors
        probabilities = _probabilities(grouped, keys, ctx.scale)
        out_gradient = gradients[0].reshape(grouped.shape)
        value_gradient = torch.bmm(probabilities.transpose(1, 2), out_gradient)
        weights_gradient = torch.bmm(out_gradient, values.transpose(1, 2))
        scores_gradient = torch._softmax_backward_data(weights_gradient, probabilities, -1, torch.bfloat16)
        query_gradient = torch.bmm(scores_gradient, keys).mul_(ctx.scale)
        key_gradient = torch.bmm(scores_gradient.transpose(1, 2), grouped).mul_(ctx.scale)
        return (
            query_gradient.view(gradients[0].shape),
            key_gradient.view(ctx.key_shape),
            value_gradient.view(ctx.key_shape),
            None,
        )


def _grouped(query: Tensor, key: Tensor) -> Tensor:
    """Return the queries, those of heads that share a key head together: (rows x key heads, group x length, size)."""
    rows, heads, length, size = query.shape
    return query.reshape(rows * key.shape[1], heads // key.shape[1] * length, size)


def _probabilities(grouped: Tensor, keys: Tensor, scale: float) -> Tensor:
    """Return softmax(q k' scale) with the future masked, shape (rows x key heads, group x length, length)."""
    length = keys.shape[1]
    future = keys.new_full((length, length), -torch.inf).triu(1)
    mask = future.repeat(grouped.shape[1] // length, 1)
    return torch.baddbmm(mask, grouped, keys.transpose(1, 2), alpha=scale).softmax(dim=-1)
