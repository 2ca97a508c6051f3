"""The torch batch: rows of any adapters, one forward pass a token for all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from bilora.inference.lora import Adapter, AdapterRows
from bilora.inference.onednn import as_faster
from bilora.inference.sampling import choose, generator, likelihoods, penalise
from bilora.inference.slots import Slots
from bilora.inference.writing import Writer
from bilora.ports import Listener, Piece, Request, Token
from bilora.records import Completion

if TYPE_CHECKING:
    import torch


@dataclass(eq=False)
class Row:
    """One answer that is being made. `adapter` is the version that was there when it was asked for.

    `charged_s` is its equal share of every step that it took part in; `streamed` says that somebody waits
    for each piece.
    """

    system: str
    adapter: Adapter | None
    request: Request
    prompt: list[int]
    listener: Listener
    streamed: bool
    asked_at: float = field(default_factory=time.perf_counter)
    cancelled: bool = False
    told: bool = False
    new: list[int] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    finish: Literal["stop", "length"] | None = None
    first_token_s: float | None = None
    charged_s: float = 0.0
    chance: torch.Generator | None = None
    writer: Writer | None = None

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt in tokens."""
        return len(self.prompt)

    @property
    def sha256(self) -> str:
        """Which adapter answers; empty for the base."""
        return self.adapter.sha256 if self.adapter else ""

    def allow(self, tokens: int) -> None:
        """Set how long the answer may become; only before it is submitted."""
        self.request = replace(self.request, max_new_tokens=tokens)

    def cancel(self) -> None:
        """End it at the next token."""
        self.cancelled = True


class TorchBatch:
    """Rows of one model, each at its own place in its own answer.

    Implements `loop.Batch`. Used by one thread at a time.
    """

    def __init__(self, model: Any, tokenizer: Any, adapters: AdapterRows, stops: Sequence[int], *, rows: int) -> None:
        from torch.nn import Linear

        self._model = model
        self._tokenizer = tokenizer
        self._adapters = adapters
        self._stops = frozenset(stops)
        self._slots = Slots(rows)
        self._windows = _windows(model.config)
        self._widest = max(
            (one.weight for one in model.modules() if isinstance(one, Linear)), key=lambda weight: weight.numel()
        )
        self.capacity = rows
        self.rows: list[Row] = []

    def join(self, rows: Sequence[Row]) -> None:
        """Read the prompts of new rows, in one pass, and begin their answers."""
        import torch

        began = time.perf_counter()
        lengths = [len(row.prompt) for row in rows]
        width = max(lengths)
        padded = [row.prompt + [0] * (width - len(row.prompt)) for row in rows]  # on the right, where nobody looks
        ends = sorted({length - 1 for length in lengths})
        for row in rows:
            if not row.streamed:  # nobody waits for this one: its clock starts when it is its turn
                row.asked_at = began
            row.chance = generator(row.request, row.prompt)
            if row.streamed or row.request.stop:
                row.writer = Writer(self._tokenizer, row.request.stop)
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
            self._extend(rows, last, began)
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
            self._extend(self.rows, logits[:, -1].float(), began)

    def leave(self, row: Row) -> None:
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

    def completion(self, row: Row) -> Completion:
        """Return a finished row's answer."""
        stopped = bool(row.new) and row.new[-1] in self._stops
        kept = row.new[:-1] if stopped else row.new
        return Completion(
            sample_id=row.request.sample_id,
            system=row.system,
            text="".join(row.text) if row.writer else self._tokenizer.decode(kept, skip_special_tokens=True),
            prompt_tokens=len(row.prompt),
            output_tokens=len(row.new),
            latency_s=time.perf_counter() - row.asked_at if row.streamed else row.charged_s,
            finish=row.finish or "length",
            first_token_s=row.first_token_s,
        )

    def _tensor(self, values: Any) -> torch.Tensor:
        import torch

        return torch.tensor(values, device=self._widest.device)

    def _extend(self, rows: Sequence[Row], logits: torch.Tensor, began: float) -> None:
        weighed = penalise(logits, [(row.request, row.new) for row in rows])
        tokens = choose(weighed, [(row.request, row.chance) for row in rows])
        now = time.perf_counter()
        for row, token, scores in zip(rows, tokens, logits, strict=True):
            row.charged_s += (now - began) / len(rows)
            if row.first_token_s is None:
                row.first_token_s = now - row.asked_at
            row.new.append(token)
            if token in self._stops:
                row.finish = "stop"
            elif len(row.new) >= row.request.max_new_tokens:
                row.finish = "length"
            if row.writer:
                self._write(row, row.writer, token, scores)

    def _write(self, row: Row, writer: Writer, token: int, scores: torch.Tensor) -> None:
        text = "" if token in self._stops else writer.add(token)
        if writer.stopped:
            row.finish = "stop"
        elif row.finish:
            text += writer.end()
            row.finish = "stop" if writer.stopped else row.finish
        tokens: tuple[Token, ...] = ()
        if row.request.logprobs is not None and token not in self._stops:
            own, top = likelihoods(scores, token, row.request.logprobs)
            tokens = (Token(self._spelled(token), own, tuple((self._spelled(one), log) for one, log in top)),)
        row.text.append(text)
        if row.streamed and (text or tokens):
            row.listener(Piece(text, tokens))

    def _spelled(self, token: int) -> str:
        text: str = self._tokenizer.decode([token])
        return text


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
