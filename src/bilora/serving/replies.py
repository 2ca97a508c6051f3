"""HTTP replies: OpenAI's objects, chunks and errors."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bilora.records import Completion
from bilora.requests import Chunk, Token

ApiObject = dict[str, object]

DONE = b"data: [DONE]\n\n"


class ApiError(Exception):
    """A reply that is an error object."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def event(body: Mapping[str, object]) -> bytes:
    """Return one server-sent event."""
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


class Reply(Protocol):
    """Builds the reply of one endpoint: a complete object, or the events of a stream in order."""

    def full_reply(self, chunks: Sequence[Sequence[Chunk]], completions: Sequence[Completion]) -> ApiObject:
        """Return the complete reply; `chunks` has each answer's tokens if they are reported."""
        ...

    def start(self) -> Iterator[bytes]:
        """Yield the events before the first chunk."""
        ...

    def chunk(self, index: int, chunk: Chunk) -> Iterator[bytes]:
        """Yield the events of a chunk of an answer."""
        ...

    def finish(self, index: int, completion: Completion) -> Iterator[bytes]:
        """Yield the events that end an answer."""
        ...

    def end(self, completions: Sequence[Completion]) -> Iterator[bytes]:
        """Yield the events after the last answer."""
        ...

    def fail(self, error: ApiError) -> Iterator[bytes]:
        """Yield the events that end a failed stream."""
        ...


@dataclass(frozen=True)
class ReportOptions:
    """What a reply reports besides the text: tokens, and in a stream the usage at its end or in each chunk."""

    logprobs: bool = False
    usage: bool = False
    continuous_usage: bool = False


@dataclass
class CompletionReply:
    """The reply of /v1/chat/completions and of /v1/completions.

    `fingerprint` identifies the versions of base and adapter; `prompt_tokens` has the prompt's length per answer.
    """

    reply_id: str
    model: str
    fingerprint: str
    chat: bool
    report: ReportOptions
    prompt_tokens: Sequence[int]
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self._offsets = [0] * len(self.prompt_tokens)  # characters sent as tokens, per answer

    def full_reply(self, chunks: Sequence[Sequence[Chunk]], completions: Sequence[Completion]) -> ApiObject:
        """Return the complete reply; `chunks` has each answer's tokens if they are reported."""
        choices = []
        for index, (parts, completion) in enumerate(zip(chunks, completions, strict=True)):
            message = {"role": "assistant", "content": completion.text, "refusal": None}
            choice = {"message": message} if self.chat else {"text": completion.text}
            tokens = [token for chunk in parts for token in chunk.tokens]
            logprobs = self._logprobs(index, tokens)
            choices.append({"index": index, **choice, "logprobs": logprobs, "finish_reason": completion.finish})
        envelope = self._envelope("chat.completion", "text_completion")
        return {**envelope, "choices": choices, "usage": usage(completions)}

    def start(self) -> Iterator[bytes]:
        """Yield the first chunk of each choice of a chat."""
        for index in range(len(self.prompt_tokens) if self.chat else 0):
            yield self._chunk(index, {"delta": {"role": "assistant", "content": ""}})

    def chunk(self, index: int, chunk: Chunk) -> Iterator[bytes]:
        """Yield a chunk of an answer."""
        content: ApiObject = {"delta": {"content": chunk.text}} if self.chat else {"text": chunk.text}
        yield self._chunk(index, content, self._logprobs(index, chunk.tokens), output_tokens=chunk.output_tokens)

    def finish(self, index: int, completion: Completion) -> Iterator[bytes]:
        """Yield the last chunk of a choice."""
        content: ApiObject = {"delta": {}} if self.chat else {"text": ""}
        yield self._chunk(index, content, finish=completion.finish, output_tokens=completion.output_tokens or 0)

    def end(self, completions: Sequence[Completion]) -> Iterator[bytes]:
        """Yield the chunk with the usage if it is requested, and [DONE]."""
        if self.report.usage:
            envelope = self._envelope("chat.completion.chunk", "text_completion")
            yield event({**envelope, "choices": [], "usage": usage(completions)})
        yield DONE

    def fail(self, error: ApiError) -> Iterator[bytes]:
        """Yield the error object and [DONE]."""
        yield event(error.body)
        yield DONE

    def _envelope(self, chat: str, legacy: str) -> ApiObject:
        return {
            "id": self.reply_id,
            "object": chat if self.chat else legacy,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }

    def _chunk(
        self,
        index: int,
        content: ApiObject,
        logprobs: ApiObject | None = None,
        *,
        finish: str | None = None,
        output_tokens: int = 0,
    ) -> bytes:
        choice = {"index": index, **content, "logprobs": logprobs, "finish_reason": finish}
        chunk: ApiObject = {**self._envelope("chat.completion.chunk", "text_completion"), "choices": [choice]}
        if self.report.usage:
            so_far = counts(self.prompt_tokens[index], output_tokens)
            chunk["usage"] = so_far if self.report.continuous_usage else None
        return event(chunk)

    def _logprobs(self, index: int, tokens: Sequence[Token]) -> ApiObject | None:
        if not self.report.logprobs:
            return None
        if self.chat:
            content = [
                {
                    **_token_object(token.text, token.logprob),
                    "top_logprobs": [_token_object(*top) for top in token.top_logprobs],
                }
                for token in tokens
            ]
            return {"content": content, "refusal": None}
        offsets = []
        for token in tokens:
            offsets.append(self._offsets[index])
            self._offsets[index] += len(token.text)
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            # Of tokens with equal texts the likeliest stays.
            "top_logprobs": [None if token.logprob is None else dict(reversed(token.top_logprobs)) for token in tokens],
            "text_offset": offsets,
        }


def usage(completions: Sequence[Completion]) -> dict[str, int]:
    """Return the usage of all answers; a prompt with several answers counts once."""
    prompts = {choice.sample_id.rpartition("-")[0]: choice.prompt_tokens or 0 for choice in completions}
    return counts(sum(prompts.values()), sum(choice.output_tokens or 0 for choice in completions))


def counts(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Return a usage object."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def _token_object(text: str, logprob: float | None) -> ApiObject:
    """Return a token object; `bytes` is null for a part of a character."""
    encoded = None if "\N{REPLACEMENT CHARACTER}" in text else list(text.encode())
    return {"token": text, "logprob": None if logprob is None else max(logprob, -9999.0), "bytes": encoded}
