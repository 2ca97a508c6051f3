"""A JSON schema before it becomes a grammar: what of it would be lost is found, and its objects are closed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from bilora.errors import BadSchema

MAX_SCHEMA_CHARS = 65_536
_LARGEST_INTEGER = 2**53
"""The library reads a schema's numbers as 64-bit floats, which know all integers up to this one."""
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "allOf", "oneOf", "prefixItems", "items", "additionalProperties")
_ANNOTATIONS = frozenset({"$defs", "definitions", "$schema", "$comment", "title", "description", "default", "examples"})
_OBJECT = frozenset({"type", "properties", "required"})


def read_schema(text: str) -> Mapping[str, object]:
    """Return the schema of this JSON text, its objects closed.

    Raises:
        BadSchema: it cannot be read, or the library would honour only a part of it without an error.
    """
    if len(text) > MAX_SCHEMA_CHARS:
        raise BadSchema(f"it has {len(text)} characters; {MAX_SCHEMA_CHARS} are read at most.")
    try:
        schema = json.loads(text)
    except (RecursionError, ValueError) as error:
        raise BadSchema(f"it cannot be read ({error}).") from None
    if not isinstance(schema, dict):
        raise BadSchema("it is no object.")
    for problem in _lost(schema):
        raise BadSchema(problem)
    _close(schema)
    return schema


def _close(schema: dict[str, object]) -> None:
    """Allow objects no other properties than those they name, unless they say `additionalProperties`.

    A small model does not know when to stop adding properties. What is closed fits the schema all the more, except
    where schemas are combined: there one side would exclude what the other requires, so such a schema is left alone.
    """
    parts = list(_subschemas(schema))
    if any(map(_combines, parts)):
        return
    for part in parts:
        match part:
            case {"properties": dict(properties)} if properties and part.keys() - _ANNOTATIONS <= _OBJECT:
                required = part.get("required", [])
                if isinstance(required, list) and all(name in properties for name in required):
                    part["additionalProperties"] = False


def _combines(part: Mapping[str, object]) -> bool:
    """Return whether an answer has to fit more than one schema here."""
    if "allOf" in part or "oneOf" in part:
        return True
    return ("$ref" in part or "anyOf" in part) and len(part.keys() - _ANNOTATIONS) > 1


def _subschemas(schema: dict[str, object]) -> Iterator[dict[str, object]]:
    """Yield the schema and all schemas inside it, at the places that keywords give them."""
    found: list[object] = [schema]
    while found:
        part = found.pop()
        if isinstance(part, list):
            found += part
        elif isinstance(part, dict):
            yield part
            found += [one for key in _MAPS if isinstance(named := part.get(key), dict) for one in named.values()]
            found += [part.get(key) for key in _LISTS]


def _lost(schema: object) -> Iterator[str]:
    """Yield what the library would not honour, and why."""
    parts = [schema]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            yield from _lost_keywords(part)
            parts += part.values()
        elif isinstance(part, list):
            parts += part
        elif isinstance(part, int | float) and abs(part) > _LARGEST_INTEGER:
            yield f"the number {part} is too large; {_LARGEST_INTEGER} is read at most."


def _lost_keywords(part: Mapping[str, object]) -> Iterator[str]:
    if "x-guidance" in part:
        yield "`x-guidance` is not understood."
    least, required = part.get("minProperties"), part.get("required")
    named = len(required) if isinstance(required, list) else 0
    if isinstance(least, int) and least > max(1, named):  # an answer may repeat a name
        yield f"`minProperties` {least} is honoured only where as many properties are `required`."
    low, high = _numbers(part, "minimum", "exclusiveMinimum"), _numbers(part, "maximum", "exclusiveMaximum")
    near = bool(low and high) and min(high) - max(low) < 1 and any(bound % 1 == 0 for bound in (*low, *high))
    if near and not part.keys().isdisjoint(("exclusiveMinimum", "exclusiveMaximum")):
        yield "exclusive bounds less than 1 apart are not kept; give `minimum` and `maximum`."


def _numbers(part: Mapping[str, object], *keys: str) -> list[float]:
    values = [part.get(key) for key in keys]
    return [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
