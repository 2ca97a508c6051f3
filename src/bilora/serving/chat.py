"""The request of POST /v1/chat/completions."""

from __future__ import annotations

import json
from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue, model_validator

from bilora.records import Message
from bilora.requests import Request, SamplingParams
from bilora.serving.wire import ApiRequest, EmptyList, PositiveTokens, StrictModel, Utf8Text


class TextPart(StrictModel):
    """A text part of a message's content."""

    type: Literal["text", "input_text", "output_text"]
    text: Utf8Text
    cache_control: JsonValue = None
    annotations: EmptyList | None = None
    logprobs: EmptyList | None = None


class CalledFunction(StrictModel):
    """The name of a called function, and its arguments in JSON."""

    name: Utf8Text
    arguments: Utf8Text


class ToolCall(StrictModel):
    """A tool call in an earlier answer."""

    id: Utf8Text | None = None
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class ChatMessage(StrictModel):
    """One message of a chat.

    Tool calls and results of earlier turns become text, because small models' chat templates have no tools: the calls
    become JSON in the assistant's message, each result a user's message.
    """

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Utf8Text | Annotated[list[TextPart], Field(min_length=1, max_length=1000)] | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=100)] | None = None
    tool_call_id: Utf8Text | None = None
    name: Utf8Text | None = None
    # Fields of a reply that clients send back as a message; they are ignored.
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: EmptyList | None = None
    reasoning: Utf8Text | None = None
    reasoning_content: Utf8Text | None = None

    @model_validator(mode="after")
    def _has_content(self) -> ChatMessage:
        if self.content is None and self.role != "assistant":
            raise ValueError("content: required, except in assistant messages")
        if self.tool_calls and self.role != "assistant":
            raise ValueError("tool_calls: only assistant messages may have them")
        return self

    def message(self) -> Message:
        """Return the message for the chat template."""
        parts = self.content or []
        content = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        match self.role:
            case "system" | "developer":
                return Message(role="system", content=content)
            case "tool" | "function":
                name = self.name or self.tool_call_id or "the tool"
                return Message(role="user", content=f"Result of {name}:\n{content}")
            case role:
                calls = [json.dumps(call.function.model_dump(), ensure_ascii=False) for call in self.tool_calls or ()]
                return Message(role=role, content="\n".join(filter(None, [content, *calls])))


class ChatRequest(ApiRequest):
    """A request for one or more answers to a chat."""

    id_prefix: ClassVar[str] = "chatcmpl-"

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1000)]
    max_completion_tokens: PositiveTokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20, strict=True)] | None = None
    tools: list[JsonValue] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    # Accepted with their neutral values only.
    parallel_tool_calls: bool | None = None
    functions: EmptyList | None = None
    function_call: Literal["none", "auto"] | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    reasoning_effort: Literal["none"] | None = None
    verbosity: Literal["medium"] | None = None
    prediction: None = None
    audio: None = None
    web_search_options: None = None
    echo: Literal[False] | None = None
    add_generation_prompt: Literal[True] | None = None
    continue_final_message: Literal[False] | None = None
    add_special_tokens: Literal[False] | None = None
    chat_template: None = None
    chat_template_kwargs: Annotated[dict[str, JsonValue], Field(max_length=0)] | None = None
    documents: EmptyList | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ChatRequest:
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens differ; send one of them")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.tools and self.tool_choice != "none":
            raise ValueError('tools: the models here do not call tools; remove them, or send tool_choice: "none"')
        return self

    @property
    def token_limit(self) -> int | None:
        """Maximum number of tokens of the answer; None if the request sets none."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def wants_logprobs(self) -> bool:
        """Whether the answer's tokens are reported."""
        return bool(self.logprobs)

    def requests(self, reply_id: str, system_prompt: str | None, penalty: float) -> list[Request]:
        """Return one request per choice.

        Args:
            system_prompt: inserted if the chat has no system message.
            penalty: the frequency penalty if the request sets none.
        """
        messages = [message.message() for message in self.messages]
        if system_prompt is not None and all(message.role != "system" for message in messages):
            messages.insert(0, Message(role="system", content=system_prompt))
        logprobs_count = (self.top_logprobs or 0) if self.logprobs else None
        return self._choices_of(Request(reply_id, tuple(messages), SamplingParams(0)), logprobs_count, penalty)
