"""Find the request parameters that a server refuses, and omit or replace them.

Servers of the same API differ: some require `max_completion_tokens`, some refuse `seed`, some accept one temperature
only. A refusal names the parameter somewhere; the request is then sent again without it.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, cast

Refusal = tuple[str, str]
"""A parameter's name and its refused value; empty if every value is refused."""

_REFUSING = (200, 400, 422, 501)
"""HTTP statuses of refusals; 200 with an error object instead of an answer."""

SYSTEM_ROLE = "system role"
"""Not a parameter, but refused like one: some chat templates have no system role."""

_REQUIRED = ("model", "messages")
_BY_VALUE = ("temperature", "top_p", "frequency_penalty", "presence_penalty")
"""Parameters of which a server may refuse one value and accept another."""

_SPELLINGS = {
    "max_tokens": r"max[ _-]?tokens",
    "max_completion_tokens": r"max[ _-]?completion[ _-]?tokens",
    "frequency_penalty": r"(?:frequency[ _-]?)?penalt(?:y|ies)",
    "response_format": r"response[ _-]?format|json[ _-]?(?:schema|object|mode)|structured[ _-]?outputs?|guided|grammar",
    "stream": r"stream(?:ing)?",
    "stream_options": r"stream[ _-]?options|include_usage",
}
"""Spellings of parameters in error messages, besides their names."""

_ACCEPTED_VALUES = re.compile(
    r"(?<!not )(?<!longer )\b(?:allowed|supported|valid|expected|available|accepted|known|use|try)\b[^.;]*", re.I
)
"""The part of a message that names accepted values."""
_NO_SYSTEM = re.compile(
    r"(?:system|developer)[\"'`]? (?:role|message|prompt|instruction)|[\"'`]system[\"'`]|roles? must alternate", re.I
)
_TOO_LARGE = re.compile(r"too (?:large|long|many|high|big)|at most|exceed|context (?:length|window|size)", re.I)


class JsonSchema(TypedDict):
    """A named JSON schema, as in the API."""

    name: str
    strict: bool
    schema: Mapping[str, object]


class ResponseFormat(TypedDict):
    """The parameter `response_format` of a JSON reply."""

    type: str
    json_schema: JsonSchema


@dataclass(frozen=True)
class AdaptedRequest:
    """The parameters as sent, and remarks on how they differ from the requested ones."""

    parameters: dict[str, Any]
    remarks: tuple[str, ...] = ()


class LearnedRefusals:
    """The parameters that one server has refused; thread-safe."""

    def __init__(self) -> None:
        self._known: frozenset[Refusal] = frozenset()
        self._lock = threading.Lock()

    @property
    def known(self) -> frozenset[Refusal]:
        """The refusals after which a request without them succeeded."""
        return self._known

    def learn(self, refusals: Iterable[Refusal]) -> None:
        """Store refusals for all later requests."""
        with self._lock:
            self._known |= frozenset(refusals)


def adapt_request(requested: Mapping[str, object], refused: frozenset[Refusal]) -> AdaptedRequest:
    """Return the parameters with the refused ones omitted or replaced."""
    sent, remarks = dict(requested), list[str]()
    if _is_refused("max_tokens", sent, refused):
        sent["max_completion_tokens"] = sent.pop("max_tokens")
    if _is_refused("max_completion_tokens", sent, refused):
        del sent["max_completion_tokens"]
        remarks.append("without a limit on the answer's length")
    if "response_format" in sent:
        schema = cast("ResponseFormat", sent["response_format"])["json_schema"]["schema"]
        if _is_refused("response_format", sent, refused):
            sent["response_format"] = {"type": "json_object"}
            sent["messages"] = _with_schema(_messages(sent), schema)
            remarks.append("with the JSON schema in the prompt only")
        if _is_refused("response_format", sent, refused):
            del sent["response_format"]
    if (SYSTEM_ROLE, "") in refused and _messages(sent)[0]["role"] == "system":
        sent["messages"] = _without_system(_messages(sent))
        remarks.append("with the system text before the first question")
    for name in requested:
        if name not in _REQUIRED and _is_refused(name, sent, refused):
            remarks += _remark(name, sent.pop(name))
    return AdaptedRequest(sent, tuple(remarks))


def find_refusals(status: int | None, document: object, sent: Mapping[str, object]) -> frozenset[Refusal]:
    """Return the refusals in an error reply; empty if it names no parameter that can be omitted."""
    if status not in _REFUSING:
        return frozenset()
    message = error_message(document)
    fields = _error_fields(document)
    # 1) The system role, if the error names no other parameter.
    has_system, other_fields = _messages(sent)[0]["role"] == "system", set(fields) & set(sent) - {"messages"}
    if has_system and _NO_SYSTEM.search(message) and not other_fields:
        return frozenset({(SYSTEM_ROLE, "")})
    if set(fields) & set(_REQUIRED):
        return frozenset()
    # 2) The parameters in the error's fields, or else the first one in its message.
    names = [name for name in dict.fromkeys(fields) if name in sent]
    names = names or _mentioned(_ACCEPTED_VALUES.sub(" ", message), sent)[:1] or _mentioned(message, sent)[:1]
    return frozenset(_refusal(name, sent[name]) for name in names)


def applies_to_all(refusals: Iterable[Refusal], document: object) -> bool:
    """Return whether the refusals apply to other requests too: a `max_tokens` too large for one prompt may not."""
    lengths = {"max_tokens", "max_completion_tokens"} & {name for name, _ in refusals}
    return not (lengths and _TOO_LARGE.search(error_message(document)))


def error_message(document: object) -> str:
    """Return the message of an error reply in any known form; empty if there is none."""
    if isinstance(document, str):
        return document
    if isinstance(document, list):
        return "; ".join(filter(None, map(error_message, document[:5])))
    if not isinstance(document, dict):
        return ""
    fields = {str(name).lower(): value for name, value in document.items()}
    location = fields.get("loc") or [fields.get("field")]
    prefix = f"{location[-1]}: " if isinstance(location, list) and isinstance(location[-1], str | int) else ""
    for name in ("error", "message", "msg", "detail", "errors", "title", "fault", "faultstring", "reason"):
        if message := error_message(fields.get(name)):
            return prefix + message
    lists = ((name, value[0]) for name, value in document.items() if isinstance(value, list) and value)
    return "; ".join(f"{name}: {value}" for name, value in lists if isinstance(value, str))  # errors by field


def _messages(sent: Mapping[str, object]) -> list[dict[str, str]]:
    return cast("list[dict[str, str]]", sent["messages"])


def _error_fields(document: object) -> list[str]:
    """Return the field names in the `param` and `loc` of an error object."""
    if isinstance(document, list):
        return [field for item in document[:20] for field in _error_fields(item)]
    if not isinstance(document, dict):
        return []
    fields = []
    if isinstance(param := document.get("param"), str):
        fields += re.findall(r"\w+", param)
    if isinstance(loc := document.get("loc"), list):
        fields += [part for part in loc if isinstance(part, str)]
    for name in ("error", "detail", "errors"):
        fields += _error_fields(document.get(name))
    return fields


def _mentioned(message: str, sent: Mapping[str, object]) -> list[str]:
    """Return the sent parameters that a message mentions, in order."""
    mentions = []
    for name in sent:
        if name not in _REQUIRED:
            spelling = _SPELLINGS.get(name) or name.replace("_", "[ _-]?")
            if match := re.search(rf"(?<!\w)(?:{spelling})(?!\w)", message, re.I):
                mentions.append((match.start(), name))
    return [name for _, name in sorted(mentions)]


def _refusal(name: str, value: object) -> Refusal:
    if name == "response_format":
        return name, cast("ResponseFormat", value)["type"]
    return name, json.dumps(value) if name in _BY_VALUE else ""


def _is_refused(name: str, sent: Mapping[str, object], refused: frozenset[Refusal]) -> bool:
    return name in sent and _refusal(name, sent[name]) in refused


def _remark(name: str, value: object) -> list[str]:
    if name in ("stream", "stream_options"):
        return []
    if name == "temperature":
        how = "so the answers are sampled, not greedy" if value == 0 else "but at the server's default"
        return [f"not at temperature {cast('float', value):g}, {how}"]
    return [f"without {name}"]


def _with_schema(messages: list[dict[str, str]], schema: Mapping[str, object]) -> list[dict[str, str]]:
    instruction = f"Reply with one JSON object and nothing else. It has to fit this JSON schema:\n{json.dumps(schema)}"
    first, *later = messages
    if first["role"] == "system":
        return [{**first, "content": f"{first['content']}\n\n{instruction}"}, *later]
    return [{"role": "system", "content": instruction}, *messages]


def _without_system(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    system, *later = messages
    if not later:
        return [{**system, "role": "user"}]
    return [{**later[0], "content": f"{system['content']}\n\n{later[0]['content']}"}, *later[1:]]
