"""Causal attention over packed rows: the rows of a pass are one sequence, and no row attends to another.

All other layers process each token separately, so only attention depends on where rows end. On CUDA, one kernel
(`torch.nn.attention.varlen`) computes all rows. On a CPU in bfloat16, rows of similar length are batched in matrix
products, whose backward pass is faster than that of torch's kernel (perf/training_parts.py). In all other cases,
torch's kernel computes each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn import Module
from torch.nn.functional import scaled_dot_product_attention
from transformers.models.llama.modeling_llama import LlamaAttention
from transformers.models.mistral.modeling_mistral import MistralAttention
from transformers.models.phi3.modeling_phi3 import Phi3Attention
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention

from bilora.training.fused import fused
from bilora.training.mixed_linear import apply_linears
from bilora.training.shapes import ROW_MULTIPLE, round_up, split_by_powers_of_two

if TYPE_CHECKING:
    from torch import Tensor

ATTENTIONS = (LlamaAttention, MistralAttention, Phi3Attention, Qwen2Attention)
"""The layers that `PackedAttention` can replace."""
_MAX_LENGTH = 1024
"""Longer rows are faster with torch's kernel, which does not compute the masked half of the scores."""
_SAVED_LENGTH = 256
"""The maximum length of rows whose attention probabilities are saved for the backward pass."""


class RowLayout:
    """The positions of a pass's rows in its sequence."""

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        """Create the layout of rows with these lengths, in order."""
        self.lengths = list(lengths)
        self._ends = [0, *accumulate(lengths)]
        self._device = device
        self._layouts: dict[int, HeadLayout] = {}

    @cached_property
    def ends(self) -> Tensor:
        """The positions where rows begin and end, shape (rows + 1,)."""
        return torch.tensor(self._ends, dtype=torch.int32, device=self._device)

    @cached_property
    def groups(self) -> list[Group]:
        """Groups of rows with similar lengths."""
        by_length: dict[int, list[slice]] = {}
        for start, end in pairwise(self._ends):
            by_length.setdefault(round_up(end - start, ROW_MULTIPLE), []).append(slice(start, end))
        return [Group(length, part) for length, rows in by_length.items() for part in split_by_powers_of_two(rows)]

    def layout(self, heads: int) -> HeadLayout:
        """Return the layout of a tensor with this number of heads."""
        if heads not in self._layouts:
            self._layouts[heads] = HeadLayout(self.groups, heads, self._device)
        return self._layouts[heads]


@dataclass(frozen=True)
class Group:
    """Rows, as slices of the tokens, that are padded to the same length."""

    length: int
    rows: Sequence[slice]


class HeadLayout:
    """The indices that reorder a tensor (tokens, heads, head size) by group, row, head and token, and back."""

    def __init__(self, groups: Sequence[Group], heads: int, device: torch.device) -> None:
        """Compute the indices."""
        sources, is_real = [], []
        for group in groups:
            starts = torch.tensor([row.start for row in group.rows])[:, None]
            sizes = torch.tensor([row.stop - row.start for row in group.rows])[:, None]
            positions = torch.arange(group.length)
            real = positions < sizes
            # Pad each row with its first token, so that no values of other rows get into it.
            tokens = starts + positions * real
            sources.append((tokens[:, None] * heads + torch.arange(heads)[:, None]).flatten())
            is_real.append(real[:, None].expand(-1, heads, -1).flatten())
        self._sizes = [len(indices) for indices in sources]
        self._rows = [len(group.rows) for group in groups]
        self._sources = torch.cat(sources).to(device)
        mask = torch.cat(is_real).to(device)
        self._padding = (~mask).nonzero()[:, 0]
        self._targets = self._sources.new_empty(int(mask.sum()))
        self._targets[self._sources[mask]] = mask.nonzero()[:, 0]

    def grouped(self, x: Tensor, *, zeros: bool = False) -> Tensor:
        """Return x, shape (tokens, heads, head size), reordered, shape (padded tokens x heads, head size).

        Args:
            zeros: whether to pad with zeros instead of the row's first token.
        """
        grouped = x.reshape(-1, x.shape[-1]).index_select(0, self._sources)
        return grouped.index_fill_(0, self._padding, 0.0) if zeros else grouped

    def by_token(self, grouped: Tensor, heads: int) -> Tensor:
        """Return a reordered tensor in the original order, without padding; the inverse of `grouped`."""
        return grouped.index_select(0, self._targets).view(-1, heads, grouped.shape[-1])

    def parts(self, grouped: Tensor, key_heads: int) -> list[Tensor]:
        """Return the parts of a reordered tensor per group, shape (rows x key heads, group x length, head size)."""
        return [
            part.view(rows * key_heads, -1, part.shape[-1])
            for part, rows in zip(torch.split(grouped, self._sizes), self._rows, strict=True)
        ]


class PackedAttention(Module):
    """An attention layer for packed rows."""

    def __init__(self, attention: Module) -> None:
        """Reuse the layers and settings of `attention`, one of `ATTENTIONS`."""
        super().__init__()
        for name, layer in attention.named_children():
            setattr(self, name, layer)  # under the names that adapters refer to
        config: Any = attention.config
        self._scale, self._head_size = cast("float", attention.scaling), cast("int", attention.head_dim)
        self._heads, self._key_heads = config.num_attention_heads, config.num_key_value_heads
        self._window: int | None = None
        if isinstance(attention, Qwen2Attention):  # per layer
            self._window = attention.sliding_window
        elif not isinstance(attention, LlamaAttention):
            self._window = getattr(config, "sliding_window", None)

    def forward(
        self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], rows: RowLayout, **_: object
    ) -> tuple[Tensor, None]:
        """Return the output, shape (1, tokens, hidden size), and None for the attention weights."""
        if "qkv_proj" in self._modules:
            widths = [heads * self._head_size for heads in (self._heads, self._key_heads, self._key_heads)]
            flat = self.get_submodule("qkv_proj")(hidden_states).split(widths, dim=-1)
        else:
            flat = apply_linears(hidden_states, [self.get_submodule(name) for name in ("q_proj", "k_proj", "v_proj")])
        query, key, value = (states[0].unflatten(-1, (-1, self._head_size)) for states in flat)
        cosines, sines = position_embeddings
        signed = torch.cat([-sines[..., : sines.shape[-1] // 2], sines[..., sines.shape[-1] // 2 :]], dim=-1)
        query, key = (_rotated(states, cosines, signed) for states in (query, key))
        attended = attend(query, key, value, rows, self._scale, self._window)
        return cast("Tensor", self.get_submodule("o_proj")(attended.flatten(1)[None])), None


def attend(query: Tensor, key: Tensor, value: Tensor, rows: RowLayout, scale: float, window: int | None) -> Tensor:
    """Return the attention output of each row, shape (tokens, heads, head size), as `query`.

    Args:
        key, value: shape (tokens, key heads, head size).
        window: the number of tokens that a token attends to, including itself; None for all previous ones.
    """
    if query.is_cuda and query.dtype != torch.float32:
        return _attend_at_once(query, key, value, rows, scale, window)
    longest = max(rows.lengths)
    if query.dtype == torch.bfloat16 and longest <= min(_MAX_LENGTH, window or longest):
        return _GroupedAttention.apply(query, key, value, rows, scale)  # type: ignore[no-any-return, no-untyped-call]
    by_row = [torch.split(states.transpose(0, 1)[None], rows.lengths, dim=2) for states in (query, key, value)]
    attended = [_attend_row(q, k, v, scale, window) for q, k, v in zip(*by_row, strict=True)]
    return torch.cat(attended, dim=2)[0].transpose(0, 1)


def _attend_row(query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
    """Return the attention output of one row from torch's kernel, shapes (1, heads, length, head size)."""
    length = query.shape[2]
    mask = None
    if window is not None and length > window:
        mask = torch.ones(length, length, dtype=torch.bool, device=query.device).tril().triu(1 - window)
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=True
    )


def _attend_at_once(
    query: Tensor, key: Tensor, value: Tensor, rows: RowLayout, scale: float, window: int | None
) -> Tensor:
    """Return the attention output of all rows from one kernel."""
    from torch.nn.attention.varlen import varlen_attn

    group = query.shape[1] // key.shape[1]
    if group > 1:
        key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    longest = max(rows.lengths)
    size = (-1 if window is None else window - 1, 0)
    attended = varlen_attn(query, key, value, rows.ends, rows.ends, longest, longest, scale=scale, window_size=size)
    return cast("Tensor", attended)


class _GroupedAttention(torch.autograd.Function):
    """softmax(q k' scale) v per head; a matrix product per group, with the query heads of a key head as its rows.

    Padding is at the end, where causal attention ignores it. The probabilities of long rows, which would be the largest
    saved tensor, are computed again in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, rows: RowLayout, scale: float) -> Tensor:
        heads, key_heads = query.shape[1], key.shape[1]
        whole, shared = rows.layout(heads), rows.layout(key_heads)
        queries, keys, values = whole.grouped(query), shared.grouped(key), shared.grouped(value)
        outs = torch.empty_like(queries)
        saved: list[Tensor | None] = []
        for q, k, v, out in zip(
            whole.parts(queries, key_heads),
            shared.parts(keys, key_heads),
            shared.parts(values, key_heads),
            whole.parts(outs, key_heads),
            strict=True,
        ):
            probabilities = _probabilities(q, k, scale)
            torch.bmm(probabilities, v, out=out)
            saved.append(probabilities if k.shape[1] <= _SAVED_LENGTH else None)
        ctx.save_for_backward(queries, keys, values, *saved)
        ctx.rows, ctx.scale, ctx.heads = rows, scale, (heads, key_heads)
        return whole.by_token(outs, heads)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        queries, keys, values, *saved = ctx.saved_tensors
        heads, key_heads = ctx.heads
        whole, shared = ctx.rows.layout(heads), ctx.rows.layout(key_heads)
        input_gradients = [torch.empty_like(states) for states in (queries, keys, values)]
        for q, k, v, saved_probabilities, out_gradient, q_gradient, k_gradient, v_gradient in zip(
            whole.parts(queries, key_heads),
            shared.parts(keys, key_heads),
            shared.parts(values, key_heads),
            saved,
            whole.parts(whole.grouped(gradients[0], zeros=True), key_heads),
            whole.parts(input_gradients[0], key_heads),
            shared.parts(input_gradients[1], key_heads),
            shared.parts(input_gradients[2], key_heads),
            strict=True,
        ):
            probabilities = _probabilities(q, k, ctx.scale) if saved_probabilities is None else saved_probabilities
            torch.bmm(probabilities.transpose(1, 2), out_gradient, out=v_gradient)
            weights_gradient = torch.bmm(out_gradient, v.transpose(1, 2))
            scores_gradient = torch._softmax_backward_data(weights_gradient, probabilities, -1, torch.bfloat16)
            torch.bmm(scores_gradient, k, out=q_gradient)
            torch.bmm(scores_gradient.transpose(1, 2), q, out=k_gradient)
        query_gradient = whole.by_token(input_gradients[0].mul_(ctx.scale), heads)
        key_gradient = shared.by_token(input_gradients[1].mul_(ctx.scale), key_heads)
        return query_gradient, key_gradient, shared.by_token(input_gradients[2], key_heads), None, None


def _probabilities(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """Return softmax(q k' scale) with a causal mask, shape (rows x key heads, group x length, length)."""
    mask = _future(keys.shape[1], queries.shape[1] // keys.shape[1], keys.dtype)
    return torch.baddbmm(mask, queries, keys.transpose(1, 2), alpha=scale).softmax(dim=-1)


@lru_cache(maxsize=16)  # a pass has few lengths, equal for all layers
def _future(length: int, group: int, dtype: torch.dtype) -> Tensor:
    """Return the causal mask: 0, and minus infinity for later tokens; shape (group x length, length)."""
    return torch.full((length, length), -torch.inf, dtype=dtype).triu(1).repeat(group, 1)


def _rotated(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Return queries or keys with rotary positions; dimensions beyond the rotated ones do not change.

    Args:
        x: shape (tokens, heads, head size).
        cosines, sines: shape (1, tokens, rotated size), with equal halves, but negative sines in the first half.
    """
    size = cosines.shape[-1]
    turned: Tensor = _Rotation.apply(x[..., :size], cosines[0, :, None], sines[0, :, None])  # type: ignore[no-untyped-call]
    return turned if size == x.shape[-1] else torch.cat([turned, x[..., size:]], dim=-1)


class _Rotation(torch.autograd.Function):
    """x cos + (x with swapped halves) sin; the backward pass rotates in the other direction."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        ctx.save_for_backward(cosines, sines)
        return _turned(x, cosines, sines, 1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cosines, sines = ctx.saved_tensors
        return _turned(gradients[0], cosines, sines, -1.0), None, None


@fused
def _turned(x: Tensor, cosines: Tensor, sines: Tensor, direction: float) -> Tensor:
    return (x * cosines).addcmul_(x.roll(x.shape[-1] // 2, -1), sines, value=direction)
