"""Causal attention over packed rows: the rows of a pass follow each other in one sequence, and none sees another.

Every other layer of a model works on each token by itself, so that packing saves its padding; only attention has to
know where rows end. On CUDA one kernel takes them all (`torch.nn.attention.varlen`). On a CPU in bfloat16 rows of
about one length are multiplied together by plain products, whose backward pass is faster than that of torch's kernel
(perf/training_parts.py). Elsewhere that kernel takes each row by itself.
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
from bilora.training.mixed_linear import products
from bilora.training.shapes import ROW_STEP, powers_of_two, rounded_up

if TYPE_CHECKING:
    from torch import Tensor

ATTENTIONS = (LlamaAttention, MistralAttention, Phi3Attention, Qwen2Attention)
"""The layers that `PackedAttention` can replace."""
_MAX_LENGTH = 1024
"""Longer rows are faster with torch's kernel, which skips the half of the scores that causality masks."""
_SAVED_LENGTH = 256
"""Up to this length, the probabilities take less memory than what the other layers save."""


class PackedRows:
    """How the rows of a pass lie in its tokens."""

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        """Take the rows' lengths in their order."""
        self.lengths = list(lengths)
        self._ends = [0, *accumulate(lengths)]
        self._device = device
        self._layouts: dict[int, HeadLayout] = {}

    @cached_property
    def ends(self) -> Tensor:
        """Where rows begin and end, shape (rows + 1,)."""
        return torch.tensor(self._ends, dtype=torch.int32, device=self._device)

    @cached_property
    def groups(self) -> list[Group]:
        """The rows of about one length."""
        by_length: dict[int, list[slice]] = {}
        for start, end in pairwise(self._ends):
            by_length.setdefault(rounded_up(end - start, ROW_STEP), []).append(slice(start, end))
        return [Group(length, part) for length, rows in by_length.items() for part in powers_of_two(rows)]

    def layout(self, heads: int) -> HeadLayout:
        """Return the layout of a tensor with this number of heads."""
        if heads not in self._layouts:
            self._layouts[heads] = HeadLayout(self.groups, heads, self._device)
        return self._layouts[heads]


@dataclass(frozen=True)
class Group:
    """Rows, by their tokens, that are padded to one length."""

    length: int
    rows: Sequence[slice]


class HeadLayout:
    """How a tensor of shape (tokens, heads, head size) is ordered for attention: by group, row, head and token."""

    def __init__(self, groups: Sequence[Group], heads: int, device: torch.device) -> None:
        """Compute the indices of both directions."""
        sources, real = [], []
        for group in groups:
            starts = torch.tensor([row.start for row in group.rows])[:, None]
            sizes = torch.tensor([row.stop - row.start for row in group.rows])[:, None]
            positions = torch.arange(group.length)
            within = positions < sizes
            # A row is padded with its own first token, so that nothing reaches it from other rows.
            tokens = starts + positions * within
            sources.append((tokens[:, None] * heads + torch.arange(heads)[:, None]).flatten())
            real.append(within[:, None].expand(-1, heads, -1).flatten())
        self._sizes = [len(one) for one in sources]
        self._rows = [len(group.rows) for group in groups]
        self._sources = torch.cat(sources).to(device)
        is_real = torch.cat(real).to(device)
        self._padding = (~is_real).nonzero()[:, 0]
        self._places = self._sources.new_empty(int(is_real.sum()))
        self._places[self._sources[is_real]] = is_real.nonzero()[:, 0]

    def grouped(self, x: Tensor, *, zeros: bool = False) -> Tensor:
        """Return x, shape (tokens, heads, head size), in this order, shape (padded tokens x heads, head size).

        Args:
            zeros: pad with them.
        """
        found = x.reshape(-1, x.shape[-1]).index_select(0, self._sources)
        return found.index_fill_(0, self._padding, 0.0) if zeros else found

    def by_token(self, grouped: Tensor, heads: int) -> Tensor:
        """Return the contrary, without padding."""
        return grouped.index_select(0, self._places).view(-1, heads, grouped.shape[-1])

    def parts(self, grouped: Tensor, key_heads: int) -> list[Tensor]:
        """Return each group's part, shape (rows x key heads, group x length, head size)."""
        return [
            part.view(rows * key_heads, -1, part.shape[-1])
            for part, rows in zip(torch.split(grouped, self._sizes), self._rows, strict=True)
        ]


class PackedAttention(Module):
    """An attention layer whose sequence is packed rows."""

    def __init__(self, plain: Module) -> None:
        """Take the layers and settings of one of `ATTENTIONS`."""
        super().__init__()
        for name, layer in plain.named_children():
            setattr(self, name, layer)  # under their own names, which adapters go by
        config: Any = plain.config
        self._scale, self._head_size = cast("float", plain.scaling), cast("int", plain.head_dim)
        self._heads, self._key_heads = config.num_attention_heads, config.num_key_value_heads
        self._window: int | None = None
        if isinstance(plain, Qwen2Attention):  # some of its layers have it
            self._window = plain.sliding_window
        elif not isinstance(plain, LlamaAttention):
            self._window = getattr(config, "sliding_window", None)

    def forward(
        self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], rows: PackedRows, **_: object
    ) -> tuple[Tensor, None]:
        """Return the output, shape (1, tokens, hidden size), and no weights."""
        if "qkv_proj" in self._modules:
            widths = [heads * self._head_size for heads in (self._heads, self._key_heads, self._key_heads)]
            flat = self.get_submodule("qkv_proj")(hidden_states).split(widths, dim=-1)
        else:
            flat = products(hidden_states, [self.get_submodule(name) for name in ("q_proj", "k_proj", "v_proj")])
        query, key, value = (one[0].unflatten(-1, (-1, self._head_size)) for one in flat)
        cosines, sines = position_embeddings
        signed = torch.cat([-sines[..., : sines.shape[-1] // 2], sines[..., sines.shape[-1] // 2 :]], dim=-1)
        query, key = (_rotated(one, cosines, signed) for one in (query, key))
        attended = attend(query, key, value, rows, self._scale, self._window)
        return cast("Tensor", self.get_submodule("o_proj")(attended.flatten(1)[None])), None


def attend(query: Tensor, key: Tensor, value: Tensor, rows: PackedRows, scale: float, window: int | None) -> Tensor:
    """Return the attention of each row to itself, shape (tokens, heads, head size), as `query`.

    Args:
        key, value: the same with as many heads or fewer.
        window: how many tokens a token sees, itself among them; None if all before it.
    """
    if query.is_cuda and query.dtype != torch.float32:
        return _attend_at_once(query, key, value, rows, scale, window)
    longest = max(rows.lengths)
    if query.dtype == torch.bfloat16 and longest <= min(_MAX_LENGTH, window or longest):
        return _GroupedAttention.apply(query, key, value, rows, scale)  # type: ignore[no-any-return, no-untyped-call]
    by_row = [torch.split(one.transpose(0, 1)[None], rows.lengths, dim=2) for one in (query, key, value)]
    attended = [_attend_row(q, k, v, scale, window) for q, k, v in zip(*by_row, strict=True)]
    return torch.cat(attended, dim=2)[0].transpose(0, 1)


def _attend_row(query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
    """Return the attention of one row by torch's kernel, shapes (1, heads, length, head size)."""
    length = query.shape[2]
    seen = None
    if window is not None and length > window:
        seen = torch.ones(length, length, dtype=torch.bool, device=query.device).tril().triu(1 - window)
    return scaled_dot_product_attention(
        query, key, value, attn_mask=seen, is_causal=seen is None, scale=scale, enable_gqa=True
    )


def _attend_at_once(
    query: Tensor, key: Tensor, value: Tensor, rows: PackedRows, scale: float, window: int | None
) -> Tensor:
    """Return the attention of all rows by one kernel."""
    from torch.nn.attention.varlen import varlen_attn

    group = query.shape[1] // key.shape[1]
    if group > 1:
        key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    longest = max(rows.lengths)
    seen = (-1 if window is None else window - 1, 0)
    found = varlen_attn(query, key, value, rows.ends, rows.ends, longest, longest, scale=scale, window_size=seen)
    return cast("Tensor", found)


class _GroupedAttention(torch.autograd.Function):
    """softmax(q k' scale) v per head, of all rows of a group at once; the heads that share keys are rows of a product.

    Padding comes last, so that no token of a row sees it. The probabilities of longer rows, then the largest tensor,
    are not saved but computed again in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, rows: PackedRows, scale: float) -> Tensor:
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
        found = [torch.empty_like(one) for one in (queries, keys, values)]
        for q, k, v, kept, out_gradient, q_gradient, k_gradient, v_gradient in zip(
            whole.parts(queries, key_heads),
            shared.parts(keys, key_heads),
            shared.parts(values, key_heads),
            saved,
            whole.parts(whole.grouped(gradients[0], zeros=True), key_heads),
            whole.parts(found[0], key_heads),
            shared.parts(found[1], key_heads),
            shared.parts(found[2], key_heads),
            strict=True,
        ):
            probabilities = _probabilities(q, k, ctx.scale) if kept is None else kept
            torch.bmm(probabilities.transpose(1, 2), out_gradient, out=v_gradient)
            weights_gradient = torch.bmm(out_gradient, v.transpose(1, 2))
            scores_gradient = torch._softmax_backward_data(weights_gradient, probabilities, -1, torch.bfloat16)
            torch.bmm(scores_gradient, k, out=q_gradient)
            torch.bmm(scores_gradient.transpose(1, 2), q, out=k_gradient)
        query_gradient = whole.by_token(found[0].mul_(ctx.scale), heads)
        key_gradient = shared.by_token(found[1].mul_(ctx.scale), key_heads)
        return query_gradient, key_gradient, shared.by_token(found[2], key_heads), None, None


def _probabilities(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """Return softmax(q k' scale) with the future masked, shape (rows x key heads, group x length, length)."""
    mask = _future(keys.shape[1], queries.shape[1] // keys.shape[1], keys.dtype)
    return torch.baddbmm(mask, queries, keys.transpose(1, 2), alpha=scale).softmax(dim=-1)


@lru_cache(maxsize=16)  # a pass has few lengths, and every layer the same
def _future(length: int, group: int, dtype: torch.dtype) -> Tensor:
    """Return what hides the future from each query: minus infinity there, else 0; shape (group x length, length)."""
    return torch.full((length, length), -torch.inf, dtype=dtype).triu(1).repeat(group, 1)


def _rotated(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Return queries or keys turned by their positions' angles; sizes beyond those of the angles are left alone.

    Args:
        x: shape (tokens, heads, head size).
        cosines, sines: shape (1, tokens, rotated sizes), the halves alike but for the sines of the first, negative.
    """
    size = cosines.shape[-1]
    turned: Tensor = _Rotation.apply(x[..., :size], cosines[0, :, None], sines[0, :, None])  # type: ignore[no-untyped-call]
    return turned if size == x.shape[-1] else torch.cat([turned, x[..., size:]], dim=-1)


class _Rotation(torch.autograd.Function):
    """x cos + (x with its halves exchanged) sin, the sines of the first half negative; turned back in reverse."""

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
