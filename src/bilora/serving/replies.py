"""Replies over HTTP: OpenAI's objects, chunks and errors."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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


@dataclass
class Reply:
    """Builds the objects of one reply. `fingerprint` identifies the adapter's bytes that made it."""

    identity: str
    model: str
    fingerprint: str
    chat: bool
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(
        self, chunks: Sequence[Sequence[Chunk]], completions: Sequence[Completion], *, logprobs: bool
    ) -> ApiObject:
        """Return the whole reply; with `logprobs`, `chunks` holds each answer's tokens."""
        choices = []
        for index, (parts, completion) in enumerate(zip(chunks, completions, strict=True)):
            message = {"role": "assistant", "content": completion.text, "refusal": None}
            choice = {"message": message} if self.chat else {"text": completion.text}
            tokens = [token for chunk in parts for token in chunk.tokens]
            reported = self._logprobs(tokens, 0) if logprobs else None
            choices.append({"index": index, **choice, "logprobs": reported, "finish_reason": completion.finish})
        envelope = self._envelope("chat.completion", "text_completion")
        return {**envelope, "choices": choices, "usage": usage(completions)}

    def opening(self, index: int) -> ApiObject:
        """Return the chunk that opens a chat's choice."""
        return self._chunk(index, {"delta": {"role": "assistant", "content": ""}}, None, None)

    def chunk(self, index: int, chunk: Chunk, *, logprobs: bool, offset: int) -> ApiObject:
        """Return the chunk whose tokens begin `offset` characters into the answer."""
        content: ApiObject = {"delta": {"content": chunk.text}} if self.chat else {"text": chunk.text}
        return self._chunk(index, content, self._logprobs(chunk.tokens, offset) if logprobs else None, None)

    def closing(self, index: int, completion: Completion) -> ApiObject:
        """Return the chunk that closes a choice."""
        content: ApiObject = {"delta": {}} if self.chat else {"text": ""}
        return self._chunk(index, content, None, completion.finish)

    def usage(self, completions: Sequence[Completion]) -> ApiObject:
        """Return the chunk with the usage."""
        envelope = self._envelope("chat.completion.chunk", "text_completion")
        return {**envelope, "choices": [], "usage": usage(completions)}

    def _envelope(self, chat: str, legacy: str) -> ApiObject:
        return {
            "id": self.identity,
            "object": chat if self.chat else legacy,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }

    def _chunk(self, index: int, content: ApiObject, logprobs: ApiObject | None, finish: str | None) -> ApiObject:
        choice = {"index": index, **content, "logprobs": logprobs, "finish_reason": finish}
        return {**self._envelope("chat.completion.chunk", "text_completion"), "choices": [choice]}

    def _logprobs(self, tokens: Sequence[Token], offset: int) -> ApiObject:
        if self.chat:
            content = [
                {**_token_object(token.text, token.logprob), "top_logprobs": [_token_object(*one) for one in token.top]}
                for token in tokens
            ]
            return {"content": content, "refusal": None}
        offsets = []
        for token in tokens:
            offsets.append(offset)
            offset += len(token.text)
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [dict(reversed(token.top)) for token in tokens],  # the likeliest of equal spellings
            "text_offset": offsets,
        }


def usage(completions: Sequence[Completion]) -> dict[str, int]:
    """Count the prompts' tokens, each prompt once, and the answers'."""
    prompts = {one.sample_id.rpartition("-")[0]: one.prompt_tokens or 0 for one in completions}
    read, written = sum(prompts.values()), sum(one.output_tokens or 0 for one in completions)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _token_object(text: str, logprob: float) -> ApiObject:
    """Return a token with its bytes; null, as the API has it, if it is no complete character."""
    encoded = None if "\N{REPLACEMENT CHARACTER}" in text else list(text.encode())
    return {"token": text, "logprob": max(logprob, -9999.0), "bytes": encoded}
