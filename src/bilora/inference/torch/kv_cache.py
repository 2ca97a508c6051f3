"""The keys and values of a batch whose rows come and go between two tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

GRAIN = 64
"""Room is made for so many tokens at a time."""


class Slots:
    """A cache for transformers' models: row i of the batch is slot i, its tokens start at column 0.

    Rows differ in length; a row's next token goes to the column of its own length, and what stands to the
    right of it in the same slot is never looked at. Nothing is kept between answers, so no answer can be
    continued from another one's cache, whoever asked.

    Shapes: keys and values (slots, key heads, columns, head size) a layer; made at the first token, let go
    when the last row has left.
    """

    is_compileable = False

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._layers: dict[int, list[torch.Tensor]] = {}
        self.lengths: list[int] = []
        self._joining = 0
        self._at: Any = None

    def mask(self, window: int | None, device: Any) -> torch.Tensor:
        """Return what each row's next token may look at, itself included; shape (rows, 1, 1, columns)."""
        import torch

        self._at = torch.tensor(self.lengths, device=device)
        columns = torch.arange(max(self.lengths) + 1, device=device)
        seen = columns[None, :] <= self._at[:, None]
        if window is not None:
            seen &= columns[None, :] > self._at[:, None] - window
        mask: torch.Tensor = seen[:, None, None, :]
        return mask

    def join(self, lengths: list[int]) -> None:
        """Take the rows of the coming forward pass, of these lengths and padded on the right, as new ones."""
        self._joining = len(lengths)
        self.lengths += lengths

    def joined(self) -> None:
        """The forward pass of the new rows is over."""
        self._joining = 0

    def stepped(self) -> None:
        """Each row has one token more."""
        self.lengths = [length + 1 for length in self.lengths]

    def leave(self, row: int) -> None:
        """Free a row's slot; the last row moves into it."""
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
        """Free all slots."""
        self.lengths, self._layers, self._joining = [], {}, 0

    # What the models of transformers call.

    def update(self, keys: Any, values: Any, layer: int, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Store the pass's keys and values; return all that the pass may look at."""
        new = keys.shape[2]
        first = len(self.lengths) - self._joining
        width = max(self.lengths) + (0 if self._joining else 1)
        kept = self._room(layer, keys, width)
        if self._joining:
            for tensor, given in zip(kept, (keys, values), strict=True):
                tensor[first : first + self._joining, :, :new] = given
            return keys, values
        count = len(self.lengths)
        places = (self._at.new_tensor(range(count)), slice(None), self._at)
        kept[0][places] = keys[:, :, 0]
        kept[1][places] = values[:, :, 0]
        return kept[0][:count, :, :width], kept[1][:count, :, :width]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many columns come before the pass's tokens; only asked for when rows join, so none."""
        return 0

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Return the first column of the pass's tokens; only asked for when rows join."""
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Return how many columns the pass's tokens look at, and from which on; only asked for when rows join."""
        return query_length, 0

    def _room(self, layer: int, like: Any, columns: int) -> list[Any]:
        """Return the layer's keys and values, with room for the rows that are there and for so many columns.

        New room is made for no more than these need, and a step more of what was too small: at most
        2.5 times as much, whatever rows were there before.
        """
        rows, old = len(self.lengths), self._layers.get(layer)
        if old is not None:
            had, _, wide, _ = old[0].shape
            if had >= rows and wide >= columns:
                return old
            rows = rows if rows <= had else min(2 * rows, self._rows)
            columns = columns if columns <= wide else columns * 5 // 4
        shape = (rows, like.shape[1], -(-columns // GRAIN) * GRAIN, like.shape[3])
        made = [like.new_zeros(shape), like.new_zeros(shape)]  # finite, for what is masked is still multiplied
        if old is not None:
            for tensor, before in zip(made, old, strict=True):
                kept = before[:rows, :, : shape[2]]
                tensor[: kept.shape[0], :, : kept.shape[2]] = kept
        self._layers[layer] = made
        return made
