"""The request of POST /v1/completions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, cast

from pydantic import Field, model_validator

from bilora.requests import Request, SamplingParams
from bilora.serving.wire import ApiRequest, TokenId, Utf8Text

_MAX_PROMPTS = 256
_Tokens = Annotated[list[TokenId], Field(min_length=1)]


class CompletionRequest(ApiRequest):
    """A request to continue prompts, as text or tokens, without a chat template."""

    id_prefix: ClassVar[str] = "cmpl-"
    default_tokens: ClassVar[int | None] = 16

    prompt: (
        Utf8Text
        | _Tokens
        | Annotated[list[Utf8Text], Field(min_length=1, max_length=_MAX_PROMPTS)]
        | Annotated[list[_Tokens], Field(min_length=1, max_length=_MAX_PROMPTS)]
    )
    max_tokens: Annotated[int, Field(ge=0, le=1_000_000, strict=True)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20, strict=True)] | None = None
    echo: bool | None = None
    suffix: Literal[""] | None = None
    add_special_tokens: Literal[True] | None = None

    @model_validator(mode="after")
    def _has_output(self) -> CompletionRequest:
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens: 0 needs echo: true, for the prompt's log probabilities")
        return self

    @property
    def wants_logprobs(self) -> bool:
        """Whether the answer's tokens are reported."""
        return self.logprobs is not None

    def requests(self, reply_id: str, system_prompt: str | None, penalty: float) -> list[Request]:
        """Return the requests, ordered by prompt, then by choice; `system_prompt` is not used."""
        return [
            request
            for prompt in self._prompts(reply_id)
            for request in self._choices_of(prompt, self.logprobs, penalty)
        ]

    def _prompts(self, reply_id: str) -> Iterator[Request]:
        """Yield one request per prompt."""
        is_single = isinstance(self.prompt, str) or isinstance(self.prompt[0], int)
        for index, prompt in enumerate([self.prompt] if is_single else self.prompt):
            text, tokens = (prompt, ()) if isinstance(prompt, str) else (None, tuple(cast("list[int]", prompt)))
            yield Request(
                f"{reply_id}-{index}", (), SamplingParams(0), text=text, prompt_ids=tokens, echo=bool(self.echo)
            )
