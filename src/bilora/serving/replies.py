"""What is answered over HTTP: OpenAI's objects, chunks and errors."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bilora.records import Completion
from bilora.requests import Chunk, Token

DONE = b"data: [DONE]\n\n"


class ApiError(Exception):
    """An answer that is an error object."""

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


def event(body: Any) -> bytes:
    """Return one server-sent event."""
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


@dataclass
class Reply:
    """The envelope of one reply. `fingerprint` names the adapter's bytes, so that an answer can be traced to them."""

    identity: str
    model: str
    fingerprint: str
    chat: bool
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, pieces: Sequence[Sequence[Chunk]], made: Sequence[Completion], *, told: bool) -> dict[str, Any]:
        """Return the reply in one go; `pieces` are there if tokens are to be told."""
        choices = []
        for index, (parts, one) in enumerate(zip(pieces, made, strict=True)):
            said = {"message": {"role": "assistant", "content": one.text, "refusal": None}}
            choice = said if self.chat else {"text": one.text}
            likely = self._likely([token for piece in parts for token in piece.tokens], 0) if told else None
            choices.append({"index": index, **choice, "logprobs": likely, "finish_reason": one.finish})
        return {**self._envelope("chat.completion", "text_completion"), "choices": choices, "usage": usage(made)}

    def opening(self, index: int) -> dict[str, Any]:
        """Return the chunk that opens a chat's choice."""
        return self._chunk(index, {"delta": {"role": "assistant", "content": ""}}, None, None)

    def chunk(self, index: int, piece: Chunk, *, told: bool, offset: int) -> dict[str, Any]:
        """Return the chunk of a piece whose tokens begin `offset` characters into the answer."""
        said = {"delta": {"content": piece.text}} if self.chat else {"text": piece.text}
        return self._chunk(index, said, self._likely(piece.tokens, offset) if told else None, None)

    def closing(self, index: int, made: Completion) -> dict[str, Any]:
        """Return the chunk that closes a choice."""
        said: dict[str, Any] = {"delta": {}} if self.chat else {"text": ""}
        return self._chunk(index, said, None, made.finish)

    def usage(self, made: Sequence[Completion]) -> dict[str, Any]:
        """Return the chunk that tells the usage."""
        return {**self._envelope("chat.completion.chunk", "text_completion"), "choices": [], "usage": usage(made)}

    def _envelope(self, chat: str, legacy: str) -> dict[str, Any]:
        return {
            "id": self.identity,
            "object": chat if self.chat else legacy,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }

    def _chunk(self, index: int, said: dict[str, Any], likely: Any, finish: str | None) -> dict[str, Any]:
        choice = {"index": index, **said, "logprobs": likely, "finish_reason": finish}
        return {**self._envelope("chat.completion.chunk", "text_completion"), "choices": [choice]}

    def _likely(self, tokens: Sequence[Token], offset: int) -> dict[str, Any]:
        if self.chat:
            content = [
                {**_spelled(token.text, token.logprob), "top_logprobs": [_spelled(*one) for one in token.top]}
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


def usage(made: Sequence[Completion]) -> dict[str, int]:
    """Return the tokens that were read, each prompt once, and made."""
    prompts = {one.sample_id.rpartition("-")[0]: one.prompt_tokens or 0 for one in made}
    read, written = sum(prompts.values()), sum(one.output_tokens or 0 for one in made)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _spelled(text: str, logprob: float) -> dict[str, Any]:
    """A token that is no whole character has no bytes to tell: null, as the API has it."""
    encoded = None if "\N{REPLACEMENT CHARACTER}" in text else list(text.encode())
    return {"token": text, "logprob": max(logprob, -9999.0), "bytes": encoded}
