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
    `repetition_penalty` divides the positive and multiplies the negative logits of tokens in prompt or answer, and
    `logit_bias` is added to those of its tokens. A token is sampled among the `top_k` likeliest (0: all), whose
    probability is at least `min_p` times the highest, within `top_p`. Each of `stop_token_ids` ends the answer too.
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
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop_token_ids: tuple[int, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    json_schema: str | None = None


@dataclass(frozen=True)
class Request:
    """One question to an engine: a chat, or instead of `messages` what is continued as it is, a `text` or tokens.

    With `echo` the answer begins with the prompt, whose tokens are reported as the answer's are.
    """

    sample_id: str
    messages: tuple[Message, ...]
    sampling: SamplingParams
    text: str | None = None
    prompt_ids: tuple[int, ...] = ()
    echo: bool = False


@dataclass(frozen=True)
class Token:
    """One token of an answer, its natural-log probability, and the likeliest tokens in its place with theirs.

    The first token of a prompt follows nothing and has no probability.
    """

    text: str
    logprob: float | None
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Chunk:
    """What one step added to an answer: text that may be empty, and the tokens, if the request asks for them.

    `output_tokens`: how many tokens the answer has so far.
    """

    text: str
    tokens: tuple[Token, ...] = ()
    output_tokens: int = 0


OnEvent = Callable[["Chunk | Completion | Exception"], None]
"""Called with every chunk of an answer, then once with the whole answer or the error. Must return at once."""


@dataclass(frozen=True)
class Submission:
    """One request to one system, and who is called with the events of its answer."""

    system: str
    request: Request
    on_event: OnEvent
