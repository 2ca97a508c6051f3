"""Causal attention over packed rows: the rows of a pass follow each other in one sequence, and none sees another.

Every other layer of a model works on each token by itself, so that packing saves its padding; only attention has to
know where rows end. On CUDA one kernel takes them all (`torch.nn.attention.varlen`). Elsewhere each row is attended by
itself, in bfloat16 by plain products, whose backward pass takes a third to half the time of that of torch's kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_NAME = "bilora_packed_rows"
_MAX_LENGTH = 1024
"""Longer rows are faster with torch's kernel, which skips the half of the scores that causality masks."""
_SAVED_LENGTH = 256
"""Up to this length, the probabilities take less memory than what the other layers save."""


@contextmanager
def packed_attention(model: PreTrainedModel) -> Iterator[None]:
    """Use this module's attention in the model's forward passes, which then need the argument `row_lengths`."""
    before = model.config._attn_implementation
    model.config._attn_implementation = _NAME  # transformers makes no masks for a name that it does not know
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
    """Return what transformers' attention functions do: (1, tokens, heads, head size), and no weights.

    Args:
        query, key, value: shape (1, heads, tokens, head size); keys and values may have fewer heads.
        options: `row_lengths`, the tokens per row, `tokens` in all; and the model's `sliding_window`, if it has one.
    """
    row_lengths, window = options["row_lengths"], options.get("sliding_window")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if query.is_cuda and not dropout and query.dtype != torch.float32:
        return _attend_at_once(query, key, value, row_lengths, scale, window), None
    parts = [torch.split(tensor, list(row_lengths), dim=2) for tensor in (query, key, value)]
    rows = zip(*parts, strict=True)
    attended = [_attend_row(q, k, v, scale, window, dropout) for q, k, v in rows]
    return torch.cat(attended, dim=2).transpose(1, 2).contiguous(), None


AttentionInterface.register(_NAME, _attend)


def _attend_row(query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None, dropout: float) -> Tensor:
    """Return the attention of one row, shape as `query`."""
    length = query.shape[2]
    if window is not None and length > window:
        seen = torch.ones(length, length, dtype=torch.bool, device=query.device).tril().triu(1 - window)
        return scaled_dot_product_attention(
            query, key, value, attn_mask=seen, dropout_p=dropout, scale=scale, enable_gqa=True
        )
    if query.dtype == torch.bfloat16 and not dropout and 1 < length <= _MAX_LENGTH:
        return _CausalAttention.apply(query, key, value, scale)  # type: ignore[no-any-return, no-untyped-call]
    return scaled_dot_product_attention(
        query, key, value, dropout_p=dropout, is_causal=True, scale=scale, enable_gqa=True
    )


def _attend_at_once(
    query: Tensor, key: Tensor, value: Tensor, row_lengths: Sequence[int], scale: float, window: int | None
) -> Tensor:
    """Return the attention of all rows by one kernel, shape (1, tokens, heads, head size)."""
    from torch.nn.attention.varlen import varlen_attn

    group = query.shape[1] // key.shape[1]
    queries, keys, values = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if group > 1:
        keys, values = keys.repeat_interleave(group, dim=1), values.repeat_interleave(group, dim=1)
    ends = torch.tensor([0, *row_lengths], device=query.device).cumsum(0).to(torch.int32)
    longest = max(row_lengths)
    seen = (-1 if window is None else window - 1, 0)
    out = varlen_attn(queries, keys, values, ends, ends, longest, longest, scale=scale, window_size=seen)
    return cast("Tensor", out)[None]


class _CausalAttention(torch.autograd.Function):
    """softmax(q k' scale) v per head; the heads that share keys are rows of one product.

    The probabilities of longer rows, then the largest tensor, are not saved but computed again in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        grouped, keys, values = _grouped(query, key), key.flatten(0, 1), value.flatten(0, 1)
        probabilities = _probabilities(grouped, keys, scale)
        ctx.save_for_backward(grouped, keys, values, probabilities if keys.shape[1] <= _SAVED_LENGTH else None)
        ctx.scale, ctx.key_shape = scale, key.shape
        return torch.bmm(probabilities, values).view(query.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        grouped, keys, values, saved = ctx.saved_tensors
        probabilities = _probabilities(grouped, keys, ctx.scale) if saved is None else saved
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
    mask = _future(keys.shape[1], grouped.shape[1] // keys.shape[1], keys.dtype)
    return torch.baddbmm(mask, grouped, keys.transpose(1, 2), alpha=scale).softmax(dim=-1)


@lru_cache(maxsize=16)  # a pass has few lengths, and every layer the same
def _future(length: int, group: int, dtype: torch.dtype) -> Tensor:
    """Return what hides the future from each query: minus infinity there, else 0; shape (group x length, length)."""
    return torch.full((length, length), -torch.inf, dtype=dtype).triu(1).repeat(group, 1)
