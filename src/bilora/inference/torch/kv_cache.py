"""The KV cache of a batch that sequences join and leave between two tokens."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

BLOCK_TOKENS = 64
"""The cache grows by multiples of this many tokens."""


def cache_argument(model: PreTrainedModel) -> str:
    """Return the name of the KV cache among the arguments of a model; transformers 5.24 renamed it."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


class KVCache:
    """A cache for transformers' models: row i has the tokens of sequence i from column 0 on.

    Sequences differ in length: each writes its next token to the column of its length, and later columns of its row
    are masked. No sequence reuses the cache of another one.

    Shapes: keys and values (rows, key heads, columns, head size) per layer; allocated at the first token, freed when
    the last sequence is removed.
    """

    is_compileable = False

    def __init__(self, max_sequences: int) -> None:
        self._max_sequences = max_sequences
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.lengths: list[int] = []
        self._prefilling = 0
        self._next_slots: tuple[torch.Tensor, slice, torch.Tensor] | None = None  # indices of the next tokens

    def mask(self, window: int | None, device: torch.device) -> torch.Tensor:
        """Return the attention mask of each sequence's next token, shape (rows, 1, 1, columns), bool."""
        import torch

        next_columns = torch.tensor(self.lengths, device=device)
        self._next_slots = torch.arange(len(self.lengths), device=device), slice(None), next_columns
        columns = torch.arange(max(self.lengths) + 1, device=device)
        visible = columns[None, :] <= next_columns[:, None]
        if window is not None:
            visible &= columns[None, :] > next_columns[:, None] - window
        mask: torch.Tensor = visible[:, None, None, :]
        return mask

    def begin_prefill(self, lengths: list[int]) -> None:
        """Add sequences of these lengths, the right-padded rows of the next forward pass."""
        self._prefilling = len(lengths)
        self.lengths += lengths

    def end_prefill(self) -> None:
        """Switch to decoding after the prefill."""
        self._prefilling = 0

    def advance(self) -> None:
        """Increase the length of every sequence by one."""
        self.lengths = [length + 1 for length in self.lengths]

    def remove(self, row: int) -> None:
        """Free a row; the last sequence moves into it."""
        last = len(self.lengths) - 1
        if row != last:
            length = self.lengths[last]
            for pair in self._layers.values():
                for tensor in pair:
                    tensor[row, :, :length] = tensor[last, :, :length]
            self.lengths[row] = length
        self.lengths.pop()
        if not self.lengths:
            self._layers = {}

    def clear(self) -> None:
        """Free all rows."""
        self.lengths, self._layers, self._prefilling = [], {}, 0

    # The interface that transformers' models call.

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the keys and values of a forward pass; return those that its tokens attend to."""
        # 1) Grow the cache to the rows and columns after this pass.
        columns = max(self.lengths) + (0 if self._prefilling else 1)
        cache = self._reserve(layer, keys, columns)
        count = len(self.lengths)
        # 2) Prefill: copy the prompts into the new rows; each attends to itself only.
        if self._prefilling:
            for tensor, new in zip(cache, (keys, values), strict=True):
                tensor[count - self._prefilling : count, :, : new.shape[2]] = new
            return keys, values
        # 3) Decode: write one token per row, and return the used part of the cache.
        if self._next_slots is None:
            raise RuntimeError("call mask() before a decoding pass")
        cache[0][self._next_slots] = keys[:, :, 0]
        cache[1][self._next_slots] = values[:, :, 0]
        return cache[0][:count, :, :columns], cache[1][:count, :, :columns]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of columns before the pass's tokens, 0: called in a prefill only."""
        return 0

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Return the first column of the pass's tokens, 0: called in a prefill only."""
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Return the number of columns that the tokens attend to, and the first one; called in a prefill only."""
        return query_length, 0

    def _reserve(self, layer: int, like: torch.Tensor, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the layer's keys and values, large enough for all sequences and for `columns` columns.

        A reallocation grows the dimension that was too small by a reserve, to at most 2.5 times the required size.
        """
        rows, old = len(self.lengths), self._layers.get(layer)
        if old is not None:
            old_rows, _, old_columns, _ = old[0].shape
            if old_rows >= rows and old_columns >= columns:
                return old
            rows = rows if rows <= old_rows else min(2 * rows, self._max_sequences)
            columns = columns if columns <= old_columns else columns * 5 // 4
        shape = (rows, like.shape[1], -(-columns // BLOCK_TOKENS) * BLOCK_TOKENS, like.shape[3])
        new = like.new_zeros(shape), like.new_zeros(shape)  # finite: masked values are multiplied too
        if old is not None:
            for tensor, old_tensor in zip(new, old, strict=True):
                copied = old_tensor[:rows, :, : shape[2]]
                tensor[: copied.shape[0], :, : copied.shape[2]] = copied
        self._layers[layer] = new
        return new
