"""vLLM's /tokenize, /detokenize and /tokenizer_info, with the base's tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from bilora.protocols import BatchEngine
from bilora.requests import Request, SamplingParams
from bilora.serving.chat import ChatMessage
from bilora.serving.replies import ApiObject
from bilora.serving.wire import StrictModel, TokenId, Utf8Text

if TYPE_CHECKING:
    from bilora.bases.tokenizer import Tokenizer


class TokenizeRequest(StrictModel):
    """A text, or a chat for the chat template; `model` is ignored, because adapters share the base's tokenizer."""

    model: str | None = None
    prompt: Utf8Text | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1000)] | None = None
    add_generation_prompt: Literal[True] = True
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None

    @model_validator(mode="after")
    def _one_of_two_fields(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("send either prompt or messages")
        if self.messages and self.add_special_tokens:
            raise ValueError("add_special_tokens: the chat template adds them to a chat; remove this field")
        return self


class DetokenizeRequest(StrictModel):
    """Tokens to decode."""

    model: str | None = None
    tokens: Annotated[list[TokenId], Field(max_length=1_000_000)]


def tokenize(engine: BatchEngine, body: TokenizeRequest) -> ApiObject:
    """Return the tokens of a text or a chat."""
    messages = tuple(message.message() for message in body.messages or ())
    request = Request("tokenize", messages, SamplingParams(0), text=body.prompt)
    ids = engine.encode(request, special_tokens=body.add_special_tokens is not False)
    texts = [engine.decode([token]) for token in ids] if body.return_token_strs else None
    return {"count": len(ids), "max_model_len": engine.context_length, "tokens": ids, "token_strs": texts}


def detokenize(engine: BatchEngine, body: DetokenizeRequest) -> ApiObject:
    """Return the text of tokens."""
    return {"prompt": engine.decode(body.tokens)}


def tokenizer_info(tokenizer: Tokenizer) -> ApiObject:
    """Return the chat template and the special tokens, for clients that build prompts themselves."""
    return {
        "tokenizer_class": type(tokenizer).__name__,
        "chat_template": tokenizer.chat_template,
        "model_max_length": tokenizer.model_max_length,
        **{name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)},
    }
