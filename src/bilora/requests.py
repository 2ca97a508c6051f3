"""A request to an engine, and the events that answer it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bilora.records import Completion, Message


@dataclass(frozen=True)
class SamplingParams:
    """How the tokens of an answer are chosen, under the names that vLLM and OpenAI's API give them.

    Greedy at `temperature` 0. The answer ends before the first of the `stop` strings, and at an end token of the base
    unless `ignore_eos`; before `min_tokens` tokens neither ends it. The penalties are subtracted from the logits of
    tokens that the answer already contains: `frequency_penalty` per occurrence, `presence_penalty` once.
    `json_schema`: the JSON text of a schema that the answer fits, None for any answer. It then ends where nothing can
    follow, whatever `min_tokens` and `ignore_eos` say, and elsewhere at an end token if the two allow one.
    `logprobs`: how many of the likeliest tokens each `Token` of the answer is reported with; None for no tokens.
    """

    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    top_p: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    json_schema: str | None = None


@dataclass(frozen=True)
class Request:
    """One question to an engine: a chat, or instead of `messages` a `text` that is continued as it is."""

    sample_id: str
    messages: tuple[Message, ...]
    sampling: SamplingParams
    text: str | None = None


@dataclass(frozen=True)
class Token:
    """One token of an answer, its natural-log probability, and the likeliest tokens in its place with theirs."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Chunk:
    """What one step added to an answer: text that may be empty, and the tokens, if the request asks for them."""

    text: str
    tokens: tuple[Token, ...] = ()


OnEvent = Callable[["Chunk | Completion | Exception"], None]
"""Called with every chunk of an answer, then once with the whole answer or the error. Must return at once."""


@dataclass(frozen=True)
class Submission:
    """One request to one system, and who is called with the events of its answer."""

    system: str
    request: Request
    on_event: OnEvent
