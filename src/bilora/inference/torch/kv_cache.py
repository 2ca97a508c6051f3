"""The KV cache of a batch whose sequences come and go between two tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

BLOCK_TOKENS = 64
"""The cache grows by multiples of this many tokens."""


class KVCache:
    """A cache for transformers' models: row i holds sequence i of the batch, its tokens from column 0 on.

    Sequences differ in length; the next token of each goes to the column of its own length, and what is right of it in
    the same row is masked. No answer reuses the cache of another one.

    Shapes: keys and values (rows, key heads, columns, head size) per layer; allocated at the first token, freed when
    the last sequence has left.
    """

    is_compileable = False

    def __init__(self, max_sequences: int) -> None:
        self._max_sequences = max_sequences
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.lengths: list[int] = []
        self._prefilling = 0
        self._places: tuple[torch.Tensor, slice, torch.Tensor] | None = None  # of each sequence's next token

    def mask(self, window: int | None, device: torch.device) -> torch.Tensor:
        """Return what each sequence's next token attends to, itself included; shape (rows, 1, 1, columns)."""
        import torch

        next_columns = torch.tensor(self.lengths, device=device)
        self._places = torch.arange(len(self.lengths), device=device), slice(None), next_columns
        columns = torch.arange(max(self.lengths) + 1, device=device)
        seen = columns[None, :] <= next_columns[:, None]
        if window is not None:
            seen &= columns[None, :] > next_columns[:, None] - window
        mask: torch.Tensor = seen[:, None, None, :]
        return mask

    def begin_prefill(self, lengths: list[int]) -> None:
        """Add sequences: the rows of the coming forward pass, of these lengths and padded on the right."""
        self._prefilling = len(lengths)
        self.lengths += lengths

    def end_prefill(self) -> None:
        """Return to decoding after the forward pass of the new sequences."""
        self._prefilling = 0

    def advance(self) -> None:
        """Count one more token for every sequence."""
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

    # What transformers' models call.

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the keys and values of a forward pass; return all that its tokens attend to.

        1) Grow the cache to the rows and columns after this pass. 2) Prefill: copy the prompts into the new rows; they
        attend to themselves only. 3) Decoding: write one column per row, each at its own length, and return the part
        of the cache that is in use.
        """
        columns = max(self.lengths) + (0 if self._prefilling else 1)
        cache = self._reserve(layer, keys, columns)
        count = len(self.lengths)
        if self._prefilling:
            for tensor, new in zip(cache, (keys, values), strict=True):
                tensor[count - self._prefilling : count, :, : new.shape[2]] = new
            return keys, values
        if self._places is None:
            raise RuntimeError("call mask() before a decoding pass")
        cache[0][self._places] = keys[:, :, 0]
        cache[1][self._places] = values[:, :, 0]
        return cache[0][:count, :, :columns], cache[1][:count, :, :columns]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many columns precede the pass's tokens; called in a prefill only, so none."""
        return 0

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Return the first column of the pass's tokens; called in a prefill only."""
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Return how many columns the pass's tokens attend to, and the first of them; called in a prefill only."""
        return query_length, 0

    def _reserve(self, layer: int, like: torch.Tensor, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the layer's keys and values, large enough for all sequences and for `columns` columns.

        A new allocation has the size that is needed, and in the dimension that was too small some reserve: at most 2.5
        times the size, whatever sequences were there before.
        """
        rows, old = len(self.lengths), self._layers.get(layer)
        if old is not None:
            old_rows, _, old_columns, _ = old[0].shape
            if old_rows >= rows and old_columns >= columns:
                return old
            rows = rows if rows <= old_rows else min(2 * rows, self._max_sequences)
            columns = columns if columns <= old_columns else columns * 5 // 4
        shape = (rows, like.shape[1], -(-columns // BLOCK_TOKENS) * BLOCK_TOKENS, like.shape[3])
        new = like.new_zeros(shape), like.new_zeros(shape)  # finite, because masked values are still multiplied
        if old is not None:
            for tensor, before in zip(new, old, strict=True):
                copied = before[:rows, :, : shape[2]]
                tensor[: copied.shape[0], :, : copied.shape[2]] = copied
        self._layers[layer] = new
        return new
