"""Requests to an engine, and the events of their answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bilora.records import Completion, Message


@dataclass(frozen=True)
class SamplingParams:
    """Sampling parameters, with the names that vLLM and OpenAI's API use.

    Greedy at `temperature` 0. An answer ends before the first `stop` string, at a `stop_token_ids` token, and at an
    EOS token unless `ignore_eos`; none of these ends it before `min_tokens` tokens. The logits change in this order:
    `logit_bias` is added; `repetition_penalty` divides the positive and multiplies the negative logits of tokens in
    prompt or answer; `frequency_penalty` per occurrence in the answer and `presence_penalty` once are subtracted.
    Sampling is limited to tokens of at least `min_p` times the highest probability, then to the `top_k` likeliest
    (0: all), then to `top_p`.

    `json_schema`: the JSON text of a schema that the answer must match, None for any text. Such an answer ends where
    no token can follow, whatever `min_tokens` and `ignore_eos` are.
    `logprobs`: the number of likeliest tokens to report per token of the answer; None reports no tokens.
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
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop_token_ids: tuple[int, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    json_schema: str | None = None


@dataclass(frozen=True)
class Request:
    """One prompt and its sampling parameters.

    The prompt is a chat (`messages`), a raw `text` or token ids. With `echo` the answer starts with the prompt, whose
    tokens are reported like those of the answer.
    """

    sample_id: str
    messages: tuple[Message, ...]
    sampling: SamplingParams
    text: str | None = None
    prompt_ids: tuple[int, ...] = ()
    echo: bool = False


@dataclass(frozen=True)
class Token:
    """One token, its natural-log probability, and the likeliest tokens at its position.

    The first token of a prompt has no probability.
    """

    text: str
    logprob: float | None
    top_logprobs: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Chunk:
    """The text that one step added to an answer, possibly empty, and its tokens if the request has `logprobs`.

    `output_tokens`: the number of tokens of the answer so far.
    """

    text: str
    tokens: tuple[Token, ...] = ()
    output_tokens: int = 0


OnEvent = Callable[["Chunk | Completion | Exception"], None]
"""Callback for every chunk of an answer, then for the completion or the error. Must return at once."""


@dataclass(frozen=True)
class Submission:
    """One request to one system, and the callback for the events of its answer."""

    system: str
    request: Request
    on_event: OnEvent
