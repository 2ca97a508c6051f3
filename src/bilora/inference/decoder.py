"""One answer that is being made, and what every engine does with the scores of its next token."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from bilora.inference.detokenizer import Writer
from bilora.inference.sampling import choose, generator, likelihoods, penalise
from bilora.records import Completion
from bilora.requests import Chunk, OnEvent, Request, Token

if TYPE_CHECKING:
    import torch


class Version(Protocol):
    """One version of an adapter in memory. It never changes; another version is another object."""

    @property
    def sha256(self) -> str:
        """The hash of its two files."""
        ...


V = TypeVar("V", bound=Version)


@dataclass(eq=False)
class Row(Generic[V]):
    """One answer that is being made. `adapter` is the version that was there when it was asked for.

    `charged_s` is its equal share of every step that it took part in; `streamed` says that somebody waits
    for each piece.
    """

    system: str
    adapter: V | None
    request: Request
    prompt: list[int]
    listener: OnEvent
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
    def most_tokens(self) -> int:
        """How many tokens prompt and answer may come to."""
        return len(self.prompt) + self.request.sampling.max_tokens

    @property
    def sha256(self) -> str:
        """Which adapter answers; empty for the base."""
        return self.adapter.sha256 if self.adapter else ""

    def allow(self, tokens: int) -> None:
        """Set how long the answer may become; only before it is submitted."""
        self.request = replace(self.request, sampling=replace(self.request.sampling, max_tokens=tokens))

    def cancel(self) -> None:
        """End it at the next token."""
        self.cancelled = True


class Answers:
    """Chooses tokens and writes text by the same rules whatever engine made the scores."""

    def __init__(self, tokenizer: Any, stops: Iterable[int]) -> None:
        self._tokenizer = tokenizer
        self.stops = frozenset(stops)
        self._anchor: list[int] = tokenizer(".", add_special_tokens=False)["input_ids"][-1:]

    def begin(self, rows: Sequence[Row[Any]], began: float) -> None:
        """Make rows ready for their first token; the pass over their prompts began at `began`."""
        for row in rows:
            if not row.streamed:  # nobody waits for this one: its clock starts when it is its turn
                row.asked_at = began
            row.chance = generator(row.request.sampling, row.prompt)
            if row.streamed or row.request.sampling.stop:
                row.writer = Writer(self._tokenizer, row.request.sampling.stop)

    def extend(self, rows: Sequence[Row[Any]], logits: torch.Tensor, began: float) -> None:
        """Give each row the token that its scores and its request ask for.

        Args:
            logits: shape (rows, vocabulary), 32 bit.
            began: when the pass that made them began, on `time.perf_counter`.
        """
        weighed = penalise(logits, [(row.request.sampling, row.new) for row in rows])
        tokens = choose(weighed, [(row.request.sampling, row.chance) for row in rows])
        now = time.perf_counter()
        for row, token, scores in zip(rows, tokens, logits, strict=True):
            row.charged_s += (now - began) / len(rows)
            if row.first_token_s is None:
                row.first_token_s = now - row.asked_at
            row.new.append(token)
            if token in self.stops:
                row.finish = "stop"
            elif len(row.new) >= row.request.sampling.max_tokens:
                row.finish = "length"
            if row.writer:
                self._write(row, row.writer, token, scores)

    def completion(self, row: Row[Any]) -> Completion:
        """Return a finished row's answer."""
        stopped = bool(row.new) and row.new[-1] in self.stops
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

    def _write(self, row: Row[Any], writer: Writer, token: int, scores: torch.Tensor) -> None:
        text = "" if token in self.stops else writer.add(token)
        if writer.stopped:
            row.finish = "stop"
        elif row.finish:
            text += writer.end()
            row.finish = "stop" if writer.stopped else row.finish
        tokens: tuple[Token, ...] = ()
        if row.request.sampling.logprobs is not None and token not in self.stops:
            own, top = likelihoods(scores, token, row.request.sampling.logprobs)
            tokens = (Token(self._spelled(token), own, tuple((self._spelled(one), log) for one, log in top)),)
        row.text.append(text)
        if row.streamed and (text or tokens):
            row.listener(Chunk(text, tokens))

    def _spelled(self, token: int) -> str:
        """Return a token as it reads within a text: at the beginning of one, some decoders leave its space out."""
        before: str = self._tokenizer.decode(self._anchor)
        text: str = self._tokenizer.decode([*self._anchor, token])
        return text.removeprefix(before)
