"""/tokenize, /detokenize and /tokenizer_info, as vLLM has them: texts and tokens of the base."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from bilora.protocols import BatchEngine
from bilora.requests import Request, SamplingParams
from bilora.serving.chat import ChatMessage
from bilora.serving.replies import ApiObject
from bilora.serving.wire import StrictModel, TokenId, WireText

if TYPE_CHECKING:
    from bilora.bases.tokenizer import Tokenizer


class TokenizeRequest(StrictModel):
    """A text, or a chat as the template writes it; adapters share the base's tokens."""

    model: str | None = None
    prompt: WireText | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1000)] | None = None
    add_generation_prompt: Literal[True] = True
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        if self.messages and self.add_special_tokens:
            raise ValueError("add_special_tokens: the template writes those of a chat; leave it out")
        return self


class DetokenizeRequest(StrictModel):
    """Tokens."""

    model: str | None = None
    tokens: Annotated[list[TokenId], Field(max_length=1_000_000)]


def tokenize(engine: BatchEngine, body: TokenizeRequest) -> ApiObject:
    """Return the tokens of a text or a chat."""
    messages = tuple(message.message() for message in body.messages or ())
    request = Request("tokenize", messages, SamplingParams(0), text=body.prompt)
    ids = engine.encode(request, special_tokens=body.add_special_tokens is not False)
    texts = [engine.decode([token]) for token in ids] if body.return_token_strs else None
    return {"count": len(ids), "max_model_len": engine.context, "tokens": ids, "token_strs": texts}


def detokenize(engine: BatchEngine, body: DetokenizeRequest) -> ApiObject:
    """Return the text of tokens."""
    return {"prompt": engine.decode(body.tokens)}


def tokenizer_info(tokenizer: Tokenizer) -> ApiObject:
    """Return what clients need to build prompts themselves: the chat template and the special tokens."""
    return {
        "tokenizer_class": type(tokenizer).__name__,
        "chat_template": tokenizer.chat_template,
        "model_max_length": tokenizer.model_max_length,
        **{name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)},
    }
