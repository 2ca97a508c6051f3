"""Requests over HTTP: those of OpenAI's API, and vLLM's `min_tokens`, `ignore_eos` and `structured_outputs`.

A field that would change the answer and is not supported is refused, never ignored; it is accepted with the value that
changes nothing, because clients send such values.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from bilora.records import Message
from bilora.requests import Request, SamplingParams
from bilora.serving.response_format import StructuredRequest

_MAX_CHOICES = 16
_MAX_STOPS = 4


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half a surrogate pair is no text") from None
    return text


_Text = Annotated[str, AfterValidator(_encodable)]
_Count = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
_Seed = Annotated[int, Field(ge=-(2**63), lt=2**63, strict=True)]
_Stop = Annotated[_Text, Field(min_length=1)]
_Penalty = Annotated[FiniteFloat, Field(ge=-2.0, le=2.0)]
_Choices = Annotated[int, Field(ge=1, le=_MAX_CHOICES, strict=True)]


class _StrictModel(BaseModel):
    """An object whose unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


class TextPart(_StrictModel):
    """A part of a message's content, which is always text."""

    type: Literal["text"]
    text: _Text


class ChatMessage(_StrictModel):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: _Text | Annotated[list[TextPart], Field(min_length=1, max_length=1000)]
    name: None = None
    # A reply that is sent back as a turn has these fields; they are ignored.
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[object], Field(max_length=0)] | None = None
    annotations: Annotated[list[object], Field(max_length=0)] | None = None

    def message(self) -> Message:
        """Return it as a chat template reads it."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message(role="system" if self.role == "developer" else self.role, content=content)


class StreamOptions(_StrictModel):
    """What a stream reports besides the answer."""

    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


class ApiRequest(_StrictModel, StructuredRequest):
    """What both kinds of request share. Without `temperature` the answer is greedy, as in the benchmark."""

    default_tokens: ClassVar[int | None] = None
    """`max_tokens` if the request names none; None for no limit but the context."""

    model: Annotated[str, Field(min_length=1, max_length=200, examples=["base"])]
    max_tokens: _Count | None = None
    temperature: Annotated[FiniteFloat, Field(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[FiniteFloat, Field(gt=0.0, le=1.0)] | None = None
    n: _Choices | None = None
    stop: _Stop | Annotated[list[_Stop], Field(max_length=_MAX_STOPS)] | None = None
    seed: _Seed | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    frequency_penalty: _Penalty | None = None
    presence_penalty: _Penalty | None = None
    min_tokens: Annotated[int, Field(ge=0, le=1_000_000, strict=True)] | None = None
    ignore_eos: bool | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None

    @model_validator(mode="after")
    def _stream_options(self) -> ApiRequest:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: set stream: true, or leave them out")
        return self

    @property
    def choices(self) -> int:
        """How many answers per prompt."""
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        """Whether the stream's last chunk reports the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def stops(self) -> tuple[str, ...]:
        """The strings that end an answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def _requests(
        self,
        identity: str,
        limit: int | None,
        logprobs_count: int | None,
        penalty: float,
        messages: tuple[Message, ...] = (),
        text: str | None = None,
    ) -> list[Request]:
        first = secrets.randbits(62) if self.seed is None else self.seed
        return [
            Request(
                sample_id=f"{identity}-{choice}",
                messages=messages,
                sampling=SamplingParams(
                    max_tokens=limit or 0,
                    temperature=self.temperature or 0.0,
                    seed=(first + choice + 2**63) % 2**64 - 2**63,
                    top_p=1.0 if self.top_p is None else self.top_p,
                    frequency_penalty=penalty if self.frequency_penalty is None else self.frequency_penalty,
                    presence_penalty=self.presence_penalty or 0.0,
                    stop=self.stops,
                    logprobs=logprobs_count,
                    min_tokens=self.min_tokens or 0,
                    ignore_eos=bool(self.ignore_eos),
                    json_schema=self.json_schema,
                ),
                text=text,
            )
            for choice in range(self.choices)
        ]


class ChatRequest(ApiRequest):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1000)]
    max_completion_tokens: _Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20, strict=True)] | None = None
    tools: Annotated[list[object], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    store: Literal[False] | None = None
    metadata: dict[str, str] | None = None

    @model_validator(mode="after")
    def _one_limit(self) -> ChatRequest:
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens differ; give one")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self

    @property
    def wants_logprobs(self) -> bool:
        """Whether the answer's tokens are reported."""
        return bool(self.logprobs)

    def requests(self, identity: str, system_prompt: str | None, penalty: float) -> list[Request]:
        """Return one request per choice; `max_tokens` is 0 if the request names none.

        Args:
            system_prompt: what the model was trained with; it comes first if the chat has no system message.
            penalty: the frequency penalty if the request names none.
        """
        messages = [message.message() for message in self.messages]
        if system_prompt is not None and all(message.role != "system" for message in messages):
            messages.insert(0, Message(role="system", content=system_prompt))
        logprobs_count = (self.top_logprobs or 0) if self.logprobs else None
        limit = self.max_completion_tokens or self.max_tokens
        return self._requests(identity, limit, logprobs_count, penalty, messages=tuple(messages))


class CompletionRequest(ApiRequest):
    """POST /v1/completions, the legacy one: text is continued as it is, without a chat template."""

    default_tokens: ClassVar[int | None] = 16

    prompt: _Text | Annotated[list[_Text], Field(min_length=1, max_length=_MAX_CHOICES)]
    logprobs: Annotated[int, Field(ge=0, le=5, strict=True)] | None = None
    echo: Literal[False] | None = None
    suffix: None = None
    best_of: Literal[1] | None = None

    @property
    def wants_logprobs(self) -> bool:
        """Whether the answer's tokens are reported."""
        return self.logprobs is not None

    @property
    def prompts(self) -> Sequence[str]:
        """The texts to continue."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    def requests(self, identity: str, system_prompt: str | None, penalty: float) -> list[Request]:
        """Return the requests, ordered by prompt, then by choice; raw text has no system prompt."""
        return [
            request
            for place, text in enumerate(self.prompts)
            for request in self._requests(f"{identity}-{place}", self.max_tokens, self.logprobs, penalty, text=text)
        ]
