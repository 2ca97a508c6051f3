"""The torch batch: rows of any adapters, one forward pass a token for all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bilora.inference.decoder import Answers, Row
from bilora.inference.torch.kv_cache import Slots
from bilora.inference.torch.lora import Adapter, AdapterRows
from bilora.inference.torch.onednn import as_faster
from bilora.records import Completion

if TYPE_CHECKING:
    import torch


class TorchBatch:
    """Rows of one model, each at its own place in its own answer.

    Implements `loop.Batch`. Used by one thread at a time. All rows share one room: as many tokens each as
    the longest may come to, `cells` in all.
    """

    apart = False

    def __init__(self, model: Any, answers: Answers, adapters: AdapterRows, *, rows: int, cells: int) -> None:
        from torch.nn import Linear

        self._model = model
        self._answers = answers
        self._adapters = adapters
        self._slots = Slots(rows)
        self._cells = cells
        self._windows = _windows(model.config)
        self._widest = max(
            (one.weight for one in model.modules() if isinstance(one, Linear)), key=lambda weight: weight.numel()
        )
        self.capacity = rows
        self.rows: list[Row[Adapter]] = []

    def fits(self, row: Row[Adapter], joining: Sequence[Row[Adapter]]) -> bool:
        """Whether all could come to the length of the longest beside each other; alone a row always fits."""
        rows = [*self.rows, *joining, row]
        return len(rows) == 1 or len(rows) * max(one.most_tokens for one in rows) <= self._cells

    def join(self, rows: Sequence[Row[Adapter]]) -> None:
        """Read the prompts of new rows, in one pass, and begin their answers."""
        import torch

        began = time.perf_counter()
        lengths = [len(row.prompt) for row in rows]
        width = max(lengths)
        padded = [row.prompt + [0] * (width - len(row.prompt)) for row in rows]  # on the right, where nobody looks
        ends = sorted({length - 1 for length in lengths})
        self._answers.begin(rows, began)
        self.rows += rows
        self._slots.join(lengths)
        with torch.inference_mode(), self._adapters.rows([row.adapter for row in rows]):
            with as_faster(self._widest, len(rows) * width):
                logits = self._model(
                    input_ids=self._tensor(padded),
                    position_ids=torch.arange(width, device=self._widest.device)[None],
                    past_key_values=self._slots,
                    use_cache=True,
                    logits_to_keep=self._tensor(ends),
                ).logits
            last = logits[range(len(rows)), [ends.index(length - 1) for length in lengths]].float()
            self._answers.extend(rows, last, began)
        self._slots.joined()

    def step(self) -> None:
        """Give every row its next token."""
        import torch

        began = time.perf_counter()
        with torch.inference_mode(), self._adapters.rows([row.adapter for row in self.rows]):
            masks = {kind: self._slots.mask(window, self._widest.device) for kind, window in self._windows.items()}
            with as_faster(self._widest, len(self.rows)):
                logits = self._model(
                    input_ids=self._tensor([[row.new[-1]] for row in self.rows]),
                    attention_mask=masks if len(masks) > 1 else next(iter(masks.values())),
                    position_ids=self._tensor([[length] for length in self._slots.lengths]),
                    past_key_values=self._slots,
                    use_cache=True,
                ).logits
            self._slots.stepped()
            self._answers.extend(self.rows, logits[:, -1].float(), began)

    def leave(self, row: Row[Adapter]) -> None:
        """Take a row out; its slot is free for the next one."""
        import torch

        place = self.rows.index(row)
        with torch.inference_mode():
            self._slots.leave(place)
        self.rows[place] = self.rows[-1]
        self.rows.pop()

    def clear(self) -> None:
        """Take all rows out, in whatever state a failed pass has left them."""
        self.rows = []
        self._slots.clear()

    def completion(self, row: Row[Adapter]) -> Completion:
        """Return a finished row's answer."""
        return self._answers.completion(row)

    def _tensor(self, values: Any) -> torch.Tensor:
        import torch

        return torch.tensor(values, device=self._widest.device)


def _windows(config: Any) -> dict[str, int | None]:
    """Return how far back each kind of attention layer looks; None for all the way.

    Raises:
        ValueError: the model keeps something else than keys and values, such as a recurrent state.
    """
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"])
    if not kinds <= {"sliding_attention", "full_attention"}:
        raise ValueError(f"layers of the kinds {', '.join(sorted(kinds))} are not served")
    return {kind: window if kind == "sliding_attention" else None for kind in sorted(kinds)}
