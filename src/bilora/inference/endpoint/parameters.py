"""Request parameters that a server refuses, and what is sent in their place.

Servers of one API differ in what they accept: some want `max_completion_tokens`, some no `seed`, some only their own
temperature. A refusal names the parameter somewhere; the request is then sent again without it.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, cast

Refusal = tuple[str, str]
"""A parameter's name, and the value that was refused; empty where any value is."""

_REFUSING = (200, 400, 422, 501)
"""HTTP statuses of a refusal; 200 comes with an error object instead of an answer."""

SYSTEM_ROLE = "system role"
"""Not a parameter, but refused like one: some chat templates have no system role."""

_NEVER_DROPPED = ("model", "messages")
_BY_VALUE = ("temperature", "top_p", "frequency_penalty", "presence_penalty")
"""Of these a server may refuse one value and accept another."""

_SPELLINGS = {
    "max_tokens": r"max[ _-]?tokens",
    "max_completion_tokens": r"max[ _-]?completion[ _-]?tokens",
    "frequency_penalty": r"(?:frequency[ _-]?)?penalt(?:y|ies)",
    "response_format": r"response[ _-]?format|json[ _-]?(?:schema|object|mode)|structured[ _-]?outputs?|guided|grammar",
    "stream": r"stream(?:ing)?",
    "stream_options": r"stream[ _-]?options|include_usage",
}
"""How an error message may write a parameter other than by its name."""

_OFFER = re.compile(
    r"(?<!not )(?<!longer )\b(?:allowed|supported|valid|expected|available|accepted|known|use|try)\b[^.;]*", re.I
)
"""The part of a message that says what would be accepted."""
_NO_SYSTEM = re.compile(
    r"(?:system|developer)[\"'`]? (?:role|message|prompt|instruction)|[\"'`]system[\"'`]|roles? must alternate", re.I
)
_TOO_MUCH = re.compile(r"too (?:large|long|many|high|big)|at most|exceed|context (?:length|window|size)", re.I)


class JsonSchema(TypedDict):
    """A reply's JSON schema, under the name that the API wants for it."""

    name: str
    strict: bool
    schema: Mapping[str, object]


class ResponseFormat(TypedDict):
    """The parameter `response_format` for a reply in JSON."""

    type: str
    json_schema: JsonSchema


@dataclass(frozen=True)
class Adapted:
    """A request as it is sent, and in which respects it differs from the one wanted."""

    parameters: dict[str, Any]
    remarks: tuple[str, ...] = ()


class LearnedRefusals:
    """What one server has refused so far; shared by all threads."""

    def __init__(self) -> None:
        self._known: frozenset[Refusal] = frozenset()
        self._lock = threading.Lock()

    @property
    def known(self) -> frozenset[Refusal]:
        """Every refusal that a later success confirmed."""
        return self._known

    def learn(self, refusals: Iterable[Refusal]) -> None:
        """Remember refusals for all further requests."""
        with self._lock:
            self._known |= frozenset(refusals)


def adapt(wanted: Mapping[str, object], refused: frozenset[Refusal]) -> Adapted:
    """Return the parameters without what is refused, or with what replaces it."""
    sent, remarks = dict(wanted), list[str]()
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
    for name in wanted:
        if name not in _NEVER_DROPPED and _is_refused(name, sent, refused):
            remarks += _remark(name, sent.pop(name))
    return Adapted(sent, tuple(remarks))


def find_refusals(status: int | None, document: object, sent: Mapping[str, object]) -> frozenset[Refusal]:
    """Return what an error reply refuses of the request; empty if it names nothing that could be left out.

    Sources in turn: the error's `param`, pydantic's `loc`, and the first name of a parameter in the message.
    """
    if status not in _REFUSING:
        return frozenset()
    message = error_message(document)
    places = _places(document)
    has_system, other_places = _messages(sent)[0]["role"] == "system", set(places) & set(sent) - {"messages"}
    if has_system and _NO_SYSTEM.search(message) and not other_places:
        return frozenset({(SYSTEM_ROLE, "")})
    if set(places) & set(_NEVER_DROPPED):
        return frozenset()
    names = [name for name in dict.fromkeys(places) if name in sent]
    names = names or _named(_OFFER.sub(" ", message), sent)[:1] or _named(message, sent)[:1]
    return frozenset(_refusal(name, sent[name]) for name in names)


def holds_for_others(refusals: Iterable[Refusal], document: object) -> bool:
    """Return whether the server will refuse other requests too: a limit too large for one prompt may fit the next."""
    lengths = {"max_tokens", "max_completion_tokens"} & {name for name, _ in refusals}
    return not (lengths and _TOO_MUCH.search(error_message(document)))


def error_message(document: object) -> str:
    """Return the message of an error reply, from any of the forms in use; empty if there is none."""
    if isinstance(document, str):
        return document
    if isinstance(document, list):
        return "; ".join(filter(None, map(error_message, document[:5])))
    if not isinstance(document, dict):
        return ""
    named = {str(name).lower(): value for name, value in document.items()}
    place = named.get("loc") or [named.get("field")]
    prefix = f"{place[-1]}: " if isinstance(place, list) and isinstance(place[-1], str | int) else ""
    for name in ("error", "message", "msg", "detail", "errors", "title", "fault", "faultstring", "reason"):
        if message := error_message(named.get(name)):
            return prefix + message
    lists = ((name, value[0]) for name, value in document.items() if isinstance(value, list) and value)
    return "; ".join(f"{name}: {value}" for name, value in lists if isinstance(value, str))  # a field's faults


def _messages(sent: Mapping[str, object]) -> list[dict[str, str]]:
    return cast("list[dict[str, str]]", sent["messages"])


def _places(document: object) -> list[str]:
    """Return the fields that an error object points at: the heads of `param`s, and all parts of `loc`s."""
    if isinstance(document, list):
        return [place for one in document[:20] for place in _places(one)]
    if not isinstance(document, dict):
        return []
    places = []
    if isinstance(param := document.get("param"), str):
        places += re.findall(r"\w+", param)
    if isinstance(loc := document.get("loc"), list):
        places += [part for part in loc if isinstance(part, str)]
    for name in ("error", "detail", "errors"):
        places += _places(document.get(name))
    return places


def _named(message: str, sent: Mapping[str, object]) -> list[str]:
    """Return the sent parameters that a message names, in the order of their first mention."""
    found = []
    for name in sent:
        if name not in _NEVER_DROPPED:
            spelling = _SPELLINGS.get(name) or name.replace("_", "[ _-]?")
            if match := re.search(rf"(?<!\w)(?:{spelling})(?!\w)", message, re.I):
                found.append((match.start(), name))
    return [name for _, name in sorted(found)]


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
        how = "so the answers are drawn, not greedy" if value == 0 else "but at the server's own"
        return [f"not at temperature {cast('float', value):g}, {how}"]
    return [f"without {name}"]


def _with_schema(messages: list[dict[str, str]], schema: Mapping[str, object]) -> list[dict[str, str]]:
    instruction = f"Reply with one JSON object and nothing else. It has to fit this JSON schema:\n{json.dumps(schema)}"
    head, *rest = messages
    if head["role"] == "system":
        return [{**head, "content": f"{head['content']}\n\n{instruction}"}, *rest]
    return [{"role": "system", "content": instruction}, *messages]


def _without_system(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    system, *rest = messages
    if not rest:
        return [{**system, "role": "user"}]
    return [{**rest[0], "content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]
