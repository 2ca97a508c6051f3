"""The common fields of requests to OpenAI's API, with vLLM's sampling parameters.

An unsupported field that would change the answer is refused, never ignored. Its neutral value is accepted, because
clients send it.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, model_validator

from bilora.requests import Request, SamplingParams
from bilora.serving.response_format import StructuredRequest

MAX_CHOICES = 16
_MAX_STOPS = 32


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair is not text") from None
    return text


Utf8Text = Annotated[str, AfterValidator(_encodable)]
"""Text that UTF-8 can encode."""
PositiveTokens = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
"""A number of tokens."""
TokenId = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
"""A token id."""
EmptyList = Annotated[list[JsonValue], Field(max_length=0)]
"""A list that must be empty."""
_Stop = Annotated[Utf8Text, Field(min_length=1)]
StopStrings = _Stop | Annotated[list[_Stop], Field(max_length=_MAX_STOPS)]
"""One string that ends an answer, or several."""
_Seed = Annotated[int, Field(ge=-(2**63), lt=2**63, strict=True)]
_Penalty = Annotated[FiniteFloat, Field(ge=-2.0, le=2.0)]
_Choices = Annotated[int, Field(ge=1, le=MAX_CHOICES, strict=True)]
_Bias = Annotated[FiniteFloat, Field(ge=-100.0, le=100.0)]
_TokenKey = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
_ExactlyOne = Annotated[float, Field(ge=1.0, le=1.0)]


class StrictModel(BaseModel):
    """An object whose unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


class StreamOptions(StrictModel):
    """What a stream reports besides the answer."""

    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: Literal[False] | None = None


class _NeutralFields(StrictModel):
    """Fields that change no answer here, and unsupported fields with their neutral values."""

    user: str | None = None
    store: Literal[False] | None = None
    metadata: dict[str, str] | None = None
    service_tier: Literal["auto", "default"] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    best_of: Literal[1] | None = None
    use_beam_search: Literal[False] | None = None
    length_penalty: _ExactlyOne | None = None
    skip_special_tokens: Literal[True] | None = None
    spaces_between_special_tokens: Literal[True] | None = None
    include_stop_str_in_output: Literal[False] | None = None
    truncate_prompt_tokens: None = None
    prompt_logprobs: None = None
    extra_body: Annotated[dict[str, JsonValue], Field(max_length=0)] | None = None


class ApiRequest(_NeutralFields, StructuredRequest):
    """The common fields of requests for answers. Without `temperature` an answer is greedy, as in the benchmark."""

    id_prefix: ClassVar[str]
    """The prefix of the replies' ids."""
    default_tokens: ClassVar[int | None] = None
    """The default of `max_tokens`; None for the whole context."""

    model: Annotated[str, Field(min_length=1, max_length=200, examples=["base"])]
    max_tokens: PositiveTokens | None = None
    temperature: Annotated[FiniteFloat, Field(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[FiniteFloat, Field(gt=0.0, le=1.0)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=1_000_000, strict=True)] | None = None
    min_p: Annotated[FiniteFloat, Field(ge=0.0, le=1.0)] | None = None
    n: _Choices | None = None
    stop: StopStrings | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=_MAX_STOPS)] | None = None
    seed: _Seed | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: _Penalty | None = None
    presence_penalty: _Penalty | None = None
    repetition_penalty: Annotated[FiniteFloat, Field(gt=0.0, le=10.0)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=1_000_000, strict=True)] | None = None
    ignore_eos: bool | None = None
    logit_bias: Annotated[dict[_TokenKey, _Bias], Field(max_length=1000)] | None = None

    @model_validator(mode="after")
    def _stream_options(self) -> ApiRequest:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: set stream: true, or remove them")
        return self

    @property
    def token_limit(self) -> int | None:
        """Maximum number of tokens of the answer; None if the request sets none."""
        return self.max_tokens

    @property
    def choices(self) -> int:
        """Number of answers per prompt."""
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        """Whether the stream's last chunk reports the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        """Whether each chunk reports the usage so far."""
        return self.include_usage and bool(self.stream_options and self.stream_options.continuous_usage_stats)

    @property
    def stops(self) -> tuple[str, ...]:
        """The strings that end an answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def _choices_of(self, prompt: Request, logprobs_count: int | None, penalty: float) -> list[Request]:
        """Return one request per choice of the prompt; `max_tokens` is set later."""
        first_seed = secrets.randbits(62) if self.seed is None else self.seed
        return [
            replace(
                prompt,
                sample_id=f"{prompt.sample_id}-{choice}",
                sampling=SamplingParams(
                    max_tokens=0,
                    temperature=self.temperature or 0.0,
                    seed=(first_seed + choice + 2**63) % 2**64 - 2**63,
                    top_p=1.0 if self.top_p is None else self.top_p,
                    frequency_penalty=penalty if self.frequency_penalty is None else self.frequency_penalty,
                    presence_penalty=self.presence_penalty or 0.0,
                    stop=self.stops,
                    logprobs=logprobs_count,
                    min_tokens=self.min_tokens or 0,
                    ignore_eos=bool(self.ignore_eos),
                    top_k=max(0, self.top_k or 0),
                    min_p=self.min_p or 0.0,
                    repetition_penalty=1.0 if self.repetition_penalty is None else self.repetition_penalty,
                    stop_token_ids=tuple(self.stop_token_ids or ()),
                    logit_bias=tuple((int(token), bias) for token, bias in (self.logit_bias or {}).items()),
                    json_schema=self.json_schema,
                ),
            )
            for choice in range(self.choices)
        ]
