"""POST /v1/responses, for text: what may be asked, and the objects that answer."""

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
from bilora.serving.wire import Nothing, PositiveTokens, StopStrings, StrictModel, WireText


class MessageItem(StrictModel):
    """A message; one that came as output has an id and a status too."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: WireText | Annotated[list[TextPart], Field(min_length=1, max_length=1000)]
    id: str | None = None
    status: str | None = None
    phase: str | None = None

    def message(self) -> ChatMessage:
        """Return it as a chat's."""
        return ChatMessage(role=self.role, content=self.content)


class CallItem(StrictModel):
    """A call of a tool in an earlier answer."""

    type: Literal["function_call"]
    name: WireText
    arguments: WireText
    call_id: WireText
    id: str | None = None
    status: str | None = None

    def message(self) -> ChatMessage:
        """Return it as a chat's."""
        function = CalledFunction(name=self.name, arguments=self.arguments)
        return ChatMessage(role="assistant", tool_calls=[ToolCall(id=self.call_id, function=function)])


class CallOutputItem(StrictModel):
    """What a tool said."""

    type: Literal["function_call_output"]
    call_id: WireText
    output: WireText
    id: str | None = None
    status: str | None = None

    def message(self) -> ChatMessage:
        """Return it as a chat's."""
        return ChatMessage(role="tool", tool_call_id=self.call_id, content=self.output)


class FlatSchemaFormat(NamedSchema):
    """An answer that fits a JSON schema, whose fields stand beside the type here."""

    type: Literal["json_schema"]


class TextSettings(StrictModel):
    """How the answer is written."""

    format: Annotated[TextFormat | JsonObjectFormat | FlatSchemaFormat, Field(discriminator="type")] | None = None
    verbosity: Literal["medium"] | None = None

    def response_format(self) -> TextFormat | JsonObjectFormat | JsonSchemaFormat | None:
        """Return the form of the answer as a chat has it."""
        if not isinstance(self.format, FlatSchemaFormat):
            return self.format
        fields = self.format.model_dump(by_alias=True, exclude={"type"})
        return JsonSchemaFormat(type="json_schema", json_schema=NamedSchema(**fields))


class Reasoning(StrictModel):
    """Nothing: no model here reasons apart from its answer."""

    effort: Literal["none"] | None = None
    summary: None = None


class ResponseStreamOptions(StrictModel):
    """What a stream has besides the answer."""

    include_obfuscation: Literal[False] | None = None


class ResponsesRequest(StrictModel):
    """A conversation, all of which the request holds: none is stored here."""

    id_prefix: ClassVar[str] = "resp_"

    model: Annotated[str, Field(min_length=1, max_length=200, examples=["base"])]
    input: WireText | Annotated[list[MessageItem | CallItem | CallOutputItem], Field(min_length=1, max_length=1000)]
    instructions: WireText | None = None
    max_output_tokens: PositiveTokens | None = None
    temperature: Annotated[FiniteFloat, Field(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[FiniteFloat, Field(gt=0.0, le=1.0)] | None = None
    stream: bool | None = None
    stop: StopStrings | None = None
    ignore_eos: bool | None = None
    # Accepted with the value that changes nothing.
    text: TextSettings | None = None
    reasoning: Reasoning | None = None
    stream_options: ResponseStreamOptions | None = None
    store: Literal[False] | None = None
    background: Literal[False] | None = None
    previous_response_id: None = None
    conversation: None = None
    prompt: None = None
    include: list[Literal["reasoning.encrypted_content"]] | None = None
    tools: Nothing | None = None
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
        """Return the chat that asks the same."""
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
    """Builds the object of one reply, and the events of a stream, which it counts."""

    request: ResponsesRequest
    identity: str
    created: float = field(default_factory=time.time)
    _sent: int = 0

    def whole(self, chunks: Sequence[Sequence[Chunk]], completions: Sequence[Completion]) -> ApiObject:
        """Return the finished response."""
        (completion,) = completions
        short = completion.finish == "length"
        read, written = completion.prompt_tokens or 0, completion.output_tokens or 0
        usage = {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": read + written,
        }
        status = "incomplete" if short else "completed"
        return {
            **self._response(status, [self._message(completion.text, status)]),
            "incomplete_details": {"reason": "max_output_tokens"} if short else None,
            "usage": usage,
        }

    def opening(self) -> Iterator[bytes]:
        """Yield the events before the first text."""
        for name in ("created", "in_progress"):
            yield self._event(f"response.{name}", {"response": self._response("in_progress", [])})
        item = {**self._message("", "in_progress"), "content": []}
        yield self._event("response.output_item.added", {"output_index": 0, "item": item})
        yield self._event("response.content_part.added", {**self._place, "part": _part("")})

    def chunk(self, index: int, chunk: Chunk) -> Iterator[bytes]:
        """Yield the event with more text."""
        yield self._event("response.output_text.delta", {**self._place, "delta": chunk.text, "logprobs": []})

    def closing(self, index: int, completion: Completion) -> Iterator[bytes]:
        """Yield the events after the last text."""
        whole = self.whole([], [completion])
        status, text = str(whole["status"]), completion.text
        yield self._event("response.output_text.done", {**self._place, "text": text, "logprobs": []})
        yield self._event("response.content_part.done", {**self._place, "part": _part(text)})
        item = self._message(text, status)
        yield self._event("response.output_item.done", {"output_index": 0, "item": item})
        yield self._event(f"response.{status}", {"response": whole})

    def end(self, completions: Sequence[Completion]) -> Iterator[bytes]:
        """Yield nothing: the last event has said that it is the last."""
        return iter(())

    def failure(self, error: ApiError) -> Iterator[bytes]:
        """Yield the event that ends a stream whose answer failed."""
        reason = {"code": "server_error", "message": str(error)}
        yield self._event("response.failed", {"response": {**self._response("failed", []), "error": reason}})

    @property
    def _place(self) -> ApiObject:
        return {"item_id": self.identity.replace("resp_", "msg_"), "output_index": 0, "content_index": 0}

    def _event(self, name: str, body: ApiObject) -> bytes:
        data = json.dumps({"type": name, "sequence_number": self._sent, **body}, ensure_ascii=False)
        self._sent += 1
        return f"event: {name}\ndata: {data}\n\n".encode()

    def _message(self, text: str, status: str) -> ApiObject:
        content = [_part(text)]
        identity = self.identity.replace("resp_", "msg_")
        return {"id": identity, "type": "message", "status": status, "role": "assistant", "content": content}

    def _response(self, status: str, output: Sequence[ApiObject]) -> ApiObject:
        asked = self.request
        written = asked.text.format if asked.text else None
        return {
            "id": self.identity,
            "object": "response",
            "created_at": int(self.created),
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "model": asked.model,
            "output": list(output),
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": asked.temperature or 0.0,
            "text": {"format": written.model_dump(by_alias=True, exclude_none=True) if written else {"type": "text"}},
            "tool_choice": asked.tool_choice or "auto",
            "tools": [],
            "top_p": 1.0 if asked.top_p is None else asked.top_p,
            "truncation": "disabled",
            "usage": None,
            "user": asked.user,
            "metadata": asked.metadata or {},
        }


def _part(text: str) -> ApiObject:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
