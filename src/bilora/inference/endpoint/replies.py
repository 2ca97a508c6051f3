"""Read the replies of chat completions servers in any known form."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

Finish = Literal["stop", "length", "error"]

_LENGTH = re.compile(r"length|max\w*token|limit|context_window|truncat|incomplete")
_FILTERED = re.compile(r"filter|safety|recitation|blocklist|prohibited|spii")
_ABORTED = re.compile(r"error|abort|cancel|fail|time_?out|insufficient")
ONLY_REASONING = "the reply has reasoning, but no answer"
_MAX_DEPTH = 100
"""Maximum levels of objects and lists in a reply."""
_MAX_TOKENS = 2**53


class UnusableReply(Exception):
    """A reply without an answer; `document` is the server's error object, if it sent one."""

    def __init__(self, reason: str, document: object = None) -> None:
        super().__init__(reason)
        self.document = document


@dataclass
class ChatReply:
    """One answer, complete or still streaming. Token counts are None if the server sends none."""

    text_parts: list[str] = field(default_factory=list)
    finish_reason: str = ""
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    has_reasoning: bool = False
    called_tool: bool = False
    refusal: str = ""

    @property
    def text(self) -> str:
        """The answer, or the refusal if there is no answer."""
        return "".join(self.text_parts) or self.refusal

    def outcome(self) -> tuple[Finish, str]:
        """Return the finish reason, and why there is no answer.

        An unknown finish reason is `stop`.
        """
        finish_reason = self.finish_reason.lower()
        if _FILTERED.search(finish_reason):
            return "error", f"the server withheld the answer ({self.finish_reason})"
        if _ABORTED.search(finish_reason):
            return "error", f"the server aborted the answer ({self.finish_reason})"
        finish: Finish = "length" if _LENGTH.search(finish_reason) else "stop"
        if self.text.strip() or not (self.has_reasoning or self.called_tool):
            return finish, ""
        if self.called_tool:
            return "error", "the model called a tool and gave no answer"
        return ("length" if finish == "length" else "error"), ONLY_REASONING

    def add(self, choice: object, part: Literal["message", "delta"]) -> str:
        """Add a choice of a complete reply or of a chunk; return its new text."""
        if not isinstance(choice, dict):
            raise UnusableReply("a choice of the reply is not an object")
        if isinstance(finish_reason := choice.get("finish_reason"), str) and finish_reason:
            self.finish_reason = finish_reason[:80]
        message = choice.get(part)
        if message is None and part == "message" and "text" not in choice:
            raise UnusableReply("the reply's choice has no message")
        if not isinstance(message, dict):
            message = {"content": choice.get("text") if message is None else message}
        for name in ("reasoning_content", "reasoning", "thinking"):
            self.has_reasoning |= bool(message.get(name))
        self.called_tool |= bool(message.get("tool_calls") or message.get("function_call"))
        if isinstance(refusal := message.get("refusal"), str):
            self.refusal += _encodable(refusal)
        text = _encodable(self._text(message.get("content")))
        if text and part == "message" and text == "".join(self.text_parts):
            return ""  # the last event of some streams repeats the answer
        if text:
            self.text_parts.append(text)
        return text

    def count(self, usage: object) -> None:
        """Store the token counts, if they are valid."""
        if isinstance(usage, dict):
            self.prompt_tokens = _count(usage.get("prompt_tokens"), self.prompt_tokens)
            self.output_tokens = _count(usage.get("completion_tokens"), self.output_tokens)

    def _text(self, content: object) -> str:
        """Return the text of a content: a text, a list of parts, or nothing. Other parts are skipped."""
        if content is None:
            return ""
        if isinstance(content, str):
            return content
        if isinstance(content, list):
            return "".join(map(self._text, content))
        if not isinstance(content, dict):
            raise UnusableReply("the reply's content is not text")
        if "thinking" in content or "reasoning" in str(content.get("type")):
            self.has_reasoning = True
            return ""
        return content["text"] if isinstance(content.get("text"), str) else ""


def read_reply(body: bytes, content_type: str) -> ChatReply:
    """Read a complete reply, also one that the server streams although no stream was requested.

    Raises:
        UnusableReply: it has no answer.
    """
    if "event-stream" in content_type or body.lstrip().startswith(b"data:"):
        events = read_stream([body], "text/event-stream")
        while True:
            try:
                next(events)
            except StopIteration as end:
                streamed: ChatReply = end.value
                return streamed
    document = _document(body, content_type)
    choices = document.get("choices")
    if not isinstance(choices, list) or not choices:
        raise UnusableReply("the reply has no choices", document)
    reply = ChatReply()
    reply.add(next(filter(_is_first, choices), choices[0]), "message")
    reply.count(document.get("usage"))
    return reply


def read_stream(chunks: Iterable[bytes], content_type: str) -> Generator[str, None, ChatReply]:
    """Yield the text of server-sent events as it comes, then return the reply.

    The first event yields an empty text before its own, so that an error in its place is raised first. The reply of a
    server that does not stream is yielded as one text.

    Raises:
        UnusableReply: it has no answer, or an error object.
    """
    if "json" in content_type and "ndjson" not in content_type and "lines" not in content_type:
        reply = read_reply(b"".join(chunks), content_type)
        yield ""
        yield reply.text
        return reply
    reply, events, failing, answered = ChatReply(), 0, False, False
    other: list[bytes] = []
    for line in _lines(chunks):
        if line.startswith(b"event:"):
            failing = line.removeprefix(b"event:").strip() == b"error"
            continue
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            break
        if not data.startswith(b"{"):
            if data and events and line.startswith(b"data:") and not data.startswith(b"["):
                raise UnusableReply("the stream has an event that is not JSON", data.decode("utf-8", "replace"))
            if line and events == 0 and sum(map(len, other)) < 1000:
                other.append(line)
            continue
        document = _document(data, "application/json")
        if failing:
            raise UnusableReply("the server replied with an error", document)
        if events == 0:
            yield ""
        events += 1
        reply.count(document.get("usage"))
        choices = document.get("choices")
        answered |= isinstance(choices, list)
        for choice in choices if isinstance(choices, list) else ():
            if _is_first(choice):
                part: Literal["message", "delta"] = "message" if "message" in choice else "delta"
                if text := reply.add(choice, part):
                    yield text
    if events == 0:
        _document(b"\n".join(other), content_type)
    if not answered:
        raise UnusableReply("the stream has no answer")
    if not reply.text_parts and reply.refusal:
        yield reply.refusal
    return reply


def read_document(body: bytes, content_type: str) -> object:
    """Return an error reply's content: its JSON, or else its text; empty for a web page."""
    text = body.decode("utf-8", "replace")
    if _is_web_page(text, content_type):
        return ""
    try:
        return _parse_json(text)
    except (ValueError, RecursionError):
        return text


def _document(body: bytes, content_type: str) -> dict[str, object]:
    text = body.decode("utf-8", "replace").strip().removeprefix("\ufeff")
    if not text:
        raise UnusableReply("the reply is empty")
    if _is_web_page(text, content_type):
        raise UnusableReply("the reply is a web page, not JSON; base_url may be wrong, it usually ends in /v1")
    try:
        document = _parse_json(text)
    except (ValueError, RecursionError):
        raise UnusableReply("the reply is not JSON") from None
    if not isinstance(document, dict):
        raise UnusableReply("the reply is JSON, but not an object")
    if document.get("error") or "error" in (document.get("object"), document.get("type")):
        raise UnusableReply("the server replied with an error", document)
    return document


def _parse_json(text: str) -> object:
    """Parse JSON; its strings may contain line breaks.

    Raises:
        ValueError, RecursionError: it is not JSON, or nested too deeply.
    """
    document: object = json.loads(text, strict=False)
    level = [document]
    for _ in range(_MAX_DEPTH):
        inner = [node.values() if isinstance(node, dict) else node for node in level if isinstance(node, dict | list)]
        level = [value for values in inner for value in values]
        if not level:
            return document
    raise ValueError("nested too deeply")


def _is_first(choice: object) -> bool:
    """Return whether a choice is the first of several choices."""
    return isinstance(choice, dict) and choice.get("index") in (0, "0", None)


def _is_web_page(text: str, content_type: str) -> bool:
    return "html" in content_type or text.lstrip("\ufeff \t\r\n")[:1] == "<"


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Split at line feeds and carriage returns only: JSON strings may contain Unicode's other line breaks."""
    incomplete = b""
    for chunk in chunks:
        *complete, incomplete = (incomplete + chunk).replace(b"\r", b"\n").removeprefix(b"\xef\xbb\xbf").split(b"\n")
        yield from (line.strip() for line in complete)
    yield incomplete.strip()


def _count(value: object, default: int | None) -> int | None:
    return value if type(value) is int and 0 <= value < _MAX_TOKENS else default


def _encodable(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()
