"""The request of POST /v1/responses, for text, and its reply."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import Field, FiniteFloat

from bilora.records import Completion
from bilora.requests import Chunk
from bilora.serving.chat import CalledFunction, ChatMessage, ChatRequest, TextPart, ToolCall
from bilora.serving.replies import ApiError, ApiObject
from bilora.serving.response_format import JsonObjectFormat, JsonSchemaFormat, NamedSchema, TextFormat
from bilora.serving.wire import EmptyList, PositiveTokens, StopStrings, StrictModel, Utf8Text


class MessageItem(StrictModel):
    """A message; one from an earlier output also has an id and a status."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Utf8Text | Annotated[list[TextPart], Field(min_length=1, max_length=1000)]
    id: str | None = None
    status: str | None = None
    phase: str | None = None

    def message(self) -> ChatMessage:
        """Return the message for a chat."""
        return ChatMessage(role=self.role, content=self.content)


class CallItem(StrictModel):
    """A tool call in an earlier answer."""

    type: Literal["function_call"]
    name: Utf8Text
    arguments: Utf8Text
    call_id: Utf8Text
    id: str | None = None
    status: str | None = None

    def message(self) -> ChatMessage:
        """Return the message for a chat."""
        function = CalledFunction(name=self.name, arguments=self.arguments)
        return ChatMessage(role="assistant", tool_calls=[ToolCall(id=self.call_id, function=function)])


class CallOutputItem(StrictModel):
    """The result of a tool call."""

    type: Literal["function_call_output"]
    call_id: Utf8Text
    output: Utf8Text
    id: str | None = None
    status: str | None = None

    def message(self) -> ChatMessage:
        """Return the message for a chat."""
        return ChatMessage(role="tool", tool_call_id=self.call_id, content=self.output)


class FlatSchemaFormat(NamedSchema):
    """An answer that matches a JSON schema, with its fields next to `type`."""

    type: Literal["json_schema"]


class TextSettings(StrictModel):
    """The format of the answer."""

    format: Annotated[TextFormat | JsonObjectFormat | FlatSchemaFormat, Field(discriminator="type")] | None = None
    verbosity: Literal["medium"] | None = None

    def response_format(self) -> TextFormat | JsonObjectFormat | JsonSchemaFormat | None:
        """Return the same format for a chat request."""
        if not isinstance(self.format, FlatSchemaFormat):
            return self.format
        fields = self.format.model_dump(by_alias=True, exclude={"type"})
        return JsonSchemaFormat(type="json_schema", json_schema=NamedSchema(**fields))


class Reasoning(StrictModel):
    """Reasoning settings; only those without reasoning are accepted."""

    effort: Literal["none"] | None = None
    summary: None = None


class ResponseStreamOptions(StrictModel):
    """Options of a stream."""

    include_obfuscation: Literal[False] | None = None


class ResponsesRequest(StrictModel):
    """A request for one answer; it contains the whole conversation, because none is stored."""

    id_prefix: ClassVar[str] = "resp_"

    model: Annotated[str, Field(min_length=1, max_length=200, examples=["base"])]
    input: Utf8Text | Annotated[list[MessageItem | CallItem | CallOutputItem], Field(min_length=1, max_length=1000)]
    instructions: Utf8Text | None = None
    max_output_tokens: PositiveTokens | None = None
    temperature: Annotated[FiniteFloat, Field(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[FiniteFloat, Field(gt=0.0, le=1.0)] | None = None
    stream: bool | None = None
    stop: StopStrings | None = None
    ignore_eos: bool | None = None
    # Accepted with their neutral values only.
    text: TextSettings | None = None
    reasoning: Reasoning | None = None
    stream_options: ResponseStreamOptions | None = None
    store: Literal[False] | None = None
    background: Literal[False] | None = None
    previous_response_id: None = None
    conversation: None = None
    prompt: None = None
    include: list[Literal["reasoning.encrypted_content"]] | None = None
    tools: EmptyList | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: None = None
    top_logprobs: Literal[0] | None = None
    truncation: Literal["disabled"] | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    service_tier: Literal["auto", "default"] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None

    def chat(self) -> ChatRequest:
        """Return the equivalent chat request."""
        messages = [ChatMessage(role="system", content=self.instructions)] if self.instructions else []
        if isinstance(self.input, str):
            messages.append(ChatMessage(role="user", content=self.input))
        else:
            messages += [item.message() for item in self.input]
        return ChatRequest(
            model=self.model,
            messages=messages,
            max_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            stream=self.stream,
            stop=self.stop,
            ignore_eos=self.ignore_eos,
            response_format=self.text.response_format() if self.text else None,
        )


@dataclass
class ResponseReply:
    """Builds the reply of /v1/responses; implements `replies.Reply`."""

    request: ResponsesRequest
    reply_id: str
    created: float = field(default_factory=time.time)
    _sent_events: int = 0

    def full_reply(self, chunks: Sequence[Sequence[Chunk]], completions: Sequence[Completion]) -> ApiObject:
        """Return the complete response."""
        (completion,) = completions
        cut = completion.finish == "length"
        input_tokens, output_tokens = completion.prompt_tokens or 0, completion.output_tokens or 0
        usage = {
            "input_tokens": input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": input_tokens + output_tokens,
        }
        status = "incomplete" if cut else "completed"
        return {
            **self._response(status, [self._message(completion.text, status)]),
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "usage": usage,
        }

    def start(self) -> Iterator[bytes]:
        """Yield the events before the first chunk."""
        for name in ("created", "in_progress"):
            yield self._event(f"response.{name}", {"response": self._response("in_progress", [])})
        item = {**self._message("", "in_progress"), "content": []}
        yield self._event("response.output_item.added", {"output_index": 0, "item": item})
        yield self._event("response.content_part.added", {**self._location, "part": _part("")})

    def chunk(self, index: int, chunk: Chunk) -> Iterator[bytes]:
        """Yield the event of a chunk."""
        yield self._event("response.output_text.delta", {**self._location, "delta": chunk.text, "logprobs": []})

    def finish(self, index: int, completion: Completion) -> Iterator[bytes]:
        """Yield the events after the last chunk."""
        response = self.full_reply([], [completion])
        status, text = str(response["status"]), completion.text
        yield self._event("response.output_text.done", {**self._location, "text": text, "logprobs": []})
        yield self._event("response.content_part.done", {**self._location, "part": _part(text)})
        item = self._message(text, status)
        yield self._event("response.output_item.done", {"output_index": 0, "item": item})
        yield self._event(f"response.{status}", {"response": response})

    def end(self, completions: Sequence[Completion]) -> Iterator[bytes]:
        """Yield nothing: `response.completed` ends the stream."""
        return iter(())

    def fail(self, error: ApiError) -> Iterator[bytes]:
        """Yield the event that ends a failed stream."""
        reason = {"code": "server_error", "message": str(error)}
        yield self._event("response.failed", {"response": {**self._response("failed", []), "error": reason}})

    @property
    def _location(self) -> ApiObject:
        return {"item_id": self.reply_id.replace("resp_", "msg_"), "output_index": 0, "content_index": 0}

    def _event(self, name: str, body: ApiObject) -> bytes:
        data = json.dumps({"type": name, "sequence_number": self._sent_events, **body}, ensure_ascii=False)
        self._sent_events += 1
        return f"event: {name}\ndata: {data}\n\n".encode()

    def _message(self, text: str, status: str) -> ApiObject:
        content = [_part(text)]
        message_id = self.reply_id.replace("resp_", "msg_")
        return {"id": message_id, "type": "message", "status": status, "role": "assistant", "content": content}

    def _response(self, status: str, output: Sequence[ApiObject]) -> ApiObject:
        request = self.request
        text_format = request.text.format if request.text else None
        return {
            "id": self.reply_id,
            "object": "response",
            "created_at": int(self.created),
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "model": request.model,
            "output": list(output),
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": request.temperature or 0.0,
            "text": {
                "format": text_format.model_dump(by_alias=True, exclude_none=True) if text_format else {"type": "text"}
            },
            "tool_choice": request.tool_choice or "auto",
            "tools": [],
            "top_p": 1.0 if request.top_p is None else request.top_p,
            "truncation": "disabled",
            "usage": None,
            "user": request.user,
            "metadata": request.metadata or {},
        }


def _part(text: str) -> ApiObject:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
