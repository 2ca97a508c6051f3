"""Request parameters that a server refuses, and what is sent in their place.

Servers of one API differ in what they take: some want `max_completion_tokens`, some no `seed`, some only
their own temperature. A refusal names the parameter somewhere; the request is then sent again without it.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Refusal = tuple[str, str]
"""A parameter's name, and the value that was refused; empty where any value is."""

REFUSING = (200, 400, 422, 501)
"""HTTP statuses of a refusal; 200 comes with an error object in the place of an answer."""

SYSTEM_ROLE = "system role"
"""No parameter, but refused like one: some chat templates know no system message."""

NEVER_DROPPED = ("model", "messages")
BY_VALUE = ("temperature", "top_p", "frequency_penalty", "presence_penalty")
"""Of these a server may refuse one value and take another."""

SPELLINGS = {
    "max_tokens": r"max[ _-]?tokens",
    "max_completion_tokens": r"max[ _-]?completion[ _-]?tokens",
    "frequency_penalty": r"(?:frequency[ _-]?)?penalt(?:y|ies)",
    "response_format": r"response[ _-]?format|json[ _-]?(?:schema|object|mode)|structured[ _-]?outputs?|guided|grammar",
    "stream": r"stream(?:ing)?",
    "stream_options": r"stream[ _-]?options|include_usage",
}
"""How an error message may write a parameter, where that is not its name alone."""

OFFER = re.compile(
    r"(?<!not )(?<!longer )\b(?:allowed|supported|valid|expected|available|accepted|known|use|try)\b[^.;]*", re.I
)
"""The part of a message that says what would be taken."""
NO_SYSTEM = re.compile(
    r"(?:system|developer)[\"'`]? (?:role|message|prompt|instruction)|[\"'`]system[\"'`]|roles? must alternate", re.I
)
TOO_MUCH = re.compile(r"too (?:large|long|many|high|big)|at most|exceed|context (?:length|window|size)", re.I)


@dataclass(frozen=True)
class Adapted:
    """A request as it is sent, and in which respects it is not what was asked for."""

    parameters: dict[str, Any]
    remarks: tuple[str, ...] = ()


class LearnedRefusals:
    """What one server has refused so far; shared by all threads that ask it."""

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


def adapt(asked: Mapping[str, Any], refused: frozenset[Refusal]) -> Adapted:
    """Return the parameters without what is refused, or with what replaces it."""
    sent, remarks = dict(asked), []
    if _is_refused("max_tokens", sent, refused):
        sent["max_completion_tokens"] = sent.pop("max_tokens")
    if _is_refused("max_completion_tokens", sent, refused):
        del sent["max_completion_tokens"]
        remarks.append("without a limit on the answer's length")
    if "response_format" in sent:
        schema = sent["response_format"]["json_schema"]["schema"]
        if _is_refused("response_format", sent, refused):
            sent["response_format"] = {"type": "json_object"}
            sent["messages"] = _with_schema(sent["messages"], schema)
            remarks.append("with the JSON schema in the prompt only")
        if _is_refused("response_format", sent, refused):
            del sent["response_format"]
    if (SYSTEM_ROLE, "") in refused and sent["messages"][0]["role"] == "system":
        sent["messages"] = _without_system(sent["messages"])
        remarks.append("with the system text before the first question")
    for name in asked:
        if name not in NEVER_DROPPED and _is_refused(name, sent, refused):
            remarks += _remark(name, sent.pop(name))
    return Adapted(sent, tuple(remarks))


def find_refusals(status: int | None, document: object, sent: Mapping[str, Any]) -> frozenset[Refusal]:
    """Return what an error reply refuses of the request; empty if it names nothing that could be left out.

    Looked at in turn: the error's `param`, pydantic's `loc`, and the message's words, of which the first
    name of a parameter counts.
    """
    if status not in REFUSING:
        return frozenset()
    words = error_message(document)
    places = _places(document)
    if sent["messages"][0]["role"] == "system" and NO_SYSTEM.search(words) and set(places) & set(sent) <= {"messages"}:
        return frozenset({(SYSTEM_ROLE, "")})
    if set(places) & set(NEVER_DROPPED):
        return frozenset()
    names = [name for name in dict.fromkeys(places) if name in sent]
    names = names or _named(OFFER.sub(" ", words), sent)[:1] or _named(words, sent)[:1]
    return frozenset(_refusal(name, sent[name]) for name in names)


def holds_for_others(refusals: Iterable[Refusal], document: object) -> bool:
    """Tell whether other requests will be refused alike; a limit that is too large for one prompt fits the next."""
    lengths = {"max_tokens", "max_completion_tokens"} & {name for name, _ in refusals}
    return not (lengths and TOO_MUCH.search(error_message(document)))


def error_message(document: object) -> str:
    """Return a server's own words on an error, from any of the forms in use; empty if there are none."""
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
        if words := error_message(named.get(name)):
            return prefix + words
    lists = ((name, value[0]) for name, value in document.items() if isinstance(value, list) and value)
    return "; ".join(f"{name}: {value}" for name, value in lists if isinstance(value, str))  # a field's faults


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


def _named(words: str, sent: Mapping[str, Any]) -> list[str]:
    """Return the sent parameters that a message names, in the order of their first mention."""
    found = []
    for name in sent:
        if name not in NEVER_DROPPED:
            spelling = SPELLINGS.get(name) or name.replace("_", "[ _-]?")
            if match := re.search(rf"(?<!\w)(?:{spelling})(?!\w)", words, re.I):
                found.append((match.start(), name))
    return [name for _, name in sorted(found)]


def _refusal(name: str, value: Any) -> Refusal:
    if name == "response_format":
        return name, value["type"]
    return name, json.dumps(value) if name in BY_VALUE else ""


def _is_refused(name: str, sent: Mapping[str, Any], refused: frozenset[Refusal]) -> bool:
    return name in sent and _refusal(name, sent[name]) in refused


def _remark(name: str, value: Any) -> list[str]:
    if name in ("stream", "stream_options"):
        return []
    if name == "temperature":
        how = "so the answers are drawn, not greedy" if value == 0 else "but at the server's own"
        return [f"not at temperature {value:g}, {how}"]
    return [f"without {name}"]


def _with_schema(messages: list[dict[str, str]], schema: Mapping[str, Any]) -> list[dict[str, str]]:
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
