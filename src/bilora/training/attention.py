"""Causal attention over packed rows: the rows of a pass follow each other in one sequence, and none sees another.

Every other layer of a model works on each token by itself, so that packing saves its padding; only attention has to
know where rows end. On CUDA one kernel takes them all (`torch.nn.attention.varlen`). On a CPU in bfloat16 rows of
about one length are multiplied together by plain products, whose backward pass is faster than that of torch's kernel
(perf/training_parts.py). Elsewhere that kernel takes each row by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
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

    @cached_property
    def ends(self) -> Tensor:
        """Where rows begin and end, shape (rows + 1,)."""
        return torch.tensor(self._ends, dtype=torch.int32, device=self._device)

    @cached_property
    def groups(self) -> list[_Group]:
        """The rows of about one length, padded to the same."""
        by_length: dict[int, list[slice]] = {}
        for start, end in pairwise(self._ends):
            by_length.setdefault(rounded_up(end - start, ROW_STEP), []).append(slice(start, end))
        return [
            _Group(length, part, self._device) for length, rows in by_length.items() for part in powers_of_two(rows)
        ]

    @cached_property
    def places(self) -> Tensor:
        """Where each token lies among the groups' padded ones, shape (tokens,)."""
        tokens = torch.cat([group.tokens for group in self.groups])
        real = torch.cat([group.real for group in self.groups]).nonzero()[:, 0]
        found = torch.empty(len(real), dtype=torch.long, device=self._device)
        found[tokens[real]] = real
        return found


class _Group:
    """Rows padded to one length: which token lies at each padded place, and whether it is one of the row's."""

    def __init__(self, length: int, rows: Sequence[slice], device: torch.device) -> None:
        self.length, self.rows = length, len(rows)
        tokens = torch.zeros(len(rows), length, dtype=torch.long)
        real = torch.zeros(len(rows), length, dtype=torch.bool)
        for number, row in enumerate(rows):
            size = row.stop - row.start
            tokens[number, :size] = torch.arange(row.start, row.stop)
            real[number, :size] = True
        self.tokens, self.real = tokens.flatten().to(device), real.flatten().to(device)
        self.padding = (~self.real).nonzero()[:, 0]

    def by_key_head(self, x: Tensor, key_heads: int) -> Tensor:
        """Return the rows, padded with 0, those of heads that share a key head together.

        Args:
            x: shape (tokens, heads, head size).

        Returns:
            shape (rows x key heads, group x length, head size).
        """
        padded = x.index_select(0, self.tokens).index_fill_(0, self.padding, 0.0)
        by_row = padded.view(self.rows, self.length, key_heads, -1, x.shape[-1])
        return by_row.permute(0, 2, 3, 1, 4).reshape(self.rows * key_heads, -1, x.shape[-1])

    def by_token(self, x: Tensor) -> Tensor:
        """Return the contrary, with padding, shape (rows x length, heads, head size)."""
        key_heads, group, size = len(x) // self.rows, x.shape[1] // self.length, x.shape[2]
        by_row = x.view(self.rows, key_heads, group, self.length, size)
        return by_row.permute(0, 3, 1, 2, 4).reshape(-1, key_heads * group, size)


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
        saved: list[Tensor | None] = []
        outs = []
        for group in rows.groups:
            queries, keys, values = (group.by_key_head(one, key.shape[1]) for one in (query, key, value))
            probabilities = _probabilities(queries, keys, scale)
            outs.append(group.by_token(torch.bmm(probabilities, values)))
            saved += [queries, keys, values, probabilities if group.length <= _SAVED_LENGTH else None]
        ctx.save_for_backward(*saved)
        ctx.rows, ctx.scale = rows, scale
        return _joined(outs, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        found = []
        for place, group in enumerate(ctx.rows.groups):
            queries, keys, values, saved = ctx.saved_tensors[4 * place : 4 * place + 4]
            probabilities = _probabilities(queries, keys, ctx.scale) if saved is None else saved
            out_gradient = group.by_key_head(gradients[0], len(keys) // group.rows)
            value_gradient = torch.bmm(probabilities.transpose(1, 2), out_gradient)
            weights_gradient = torch.bmm(out_gradient, values.transpose(1, 2))
            scores_gradient = torch._softmax_backward_data(weights_gradient, probabilities, -1, torch.bfloat16)
            query_gradient = torch.bmm(scores_gradient, keys).mul_(ctx.scale)
            key_gradient = torch.bmm(scores_gradient.transpose(1, 2), queries).mul_(ctx.scale)
            found.append([group.by_token(one) for one in (query_gradient, key_gradient, value_gradient)])
        query_gradient, key_gradient, value_gradient = (_joined(parts, ctx.rows) for parts in zip(*found, strict=True))
        return query_gradient, key_gradient, value_gradient, None, None


def _joined(parts: Sequence[Tensor], rows: PackedRows) -> Tensor:
    """Return the tokens of all groups in their order, without padding."""
    return (parts[0] if len(parts) == 1 else torch.cat(list(parts))).index_select(0, rows.places)


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
        return (x * cosines).addcmul_(x.roll(x.shape[-1] // 2, -1), sines)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cosines, sines = ctx.saved_tensors
        (gradient,) = gradients
        return (gradient * cosines).addcmul_(gradient.roll(gradient.shape[-1] // 2, -1), sines, value=-1), None, None
