"""Prepare a JSON schema for llguidance: refuse what it would ignore, and forbid additional properties."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from bilora.errors import BadSchema

MAX_SCHEMA_CHARS = 65_536
_LARGEST_INTEGER = 2**53
"""The library reads a schema's numbers as 64-bit floats, which represent all integers up to this one."""
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "allOf", "oneOf", "prefixItems", "items", "additionalProperties")
_ANNOTATIONS = frozenset({"$defs", "definitions", "$schema", "$comment", "title", "description", "default", "examples"})
_OBJECT = frozenset({"type", "properties", "required"})


def read_schema(text: str) -> Mapping[str, object]:
    """Return the schema of this JSON text, without additional properties where it allows that.

    Raises:
        BadSchema: it cannot be read, or the library would ignore a part of it.
    """
    if len(text) > MAX_SCHEMA_CHARS:
        raise BadSchema(f"it has {len(text)} characters; at most {MAX_SCHEMA_CHARS} are accepted.")
    try:
        schema = json.loads(text)
    except (RecursionError, ValueError) as error:
        raise BadSchema(f"it cannot be read ({error}).") from None
    if not isinstance(schema, dict):
        raise BadSchema("it is not a JSON object.")
    for problem in _ignored_parts(schema):
        raise BadSchema(problem)
    _forbid_additional_properties(schema)
    return schema


def _forbid_additional_properties(schema: dict[str, object]) -> None:
    """Set `additionalProperties: false` in objects that name their properties and do not set it.

    A small model may never stop adding properties. A schema that combines schemas is not changed: one of them could
    then exclude what the other requires.
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
    """Return whether an answer must match more than one schema here."""
    if "allOf" in part or "oneOf" in part:
        return True
    return ("$ref" in part or "anyOf" in part) and len(part.keys() - _ANNOTATIONS) > 1


def _subschemas(schema: dict[str, object]) -> Iterator[dict[str, object]]:
    """Yield the schema and all schemas nested under its keywords."""
    pending: list[object] = [schema]
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending += part
        elif isinstance(part, dict):
            yield part
            pending += [value for key in _MAPS if isinstance(named := part.get(key), dict) for value in named.values()]
            pending += [part.get(key) for key in _LISTS]


def _ignored_parts(schema: object) -> Iterator[str]:
    """Yield a sentence per part of the schema that the library would ignore."""
    parts = [schema]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            yield from _ignored_keywords(part)
            parts += part.values()
        elif isinstance(part, list):
            parts += part
        elif isinstance(part, int | float) and abs(part) > _LARGEST_INTEGER:
            yield f"the number {part} is too large; the largest is {_LARGEST_INTEGER}."


def _ignored_keywords(part: Mapping[str, object]) -> Iterator[str]:
    if "x-guidance" in part:
        yield "`x-guidance` is not supported."
    min_properties, required = part.get("minProperties"), part.get("required")
    required_count = len(required) if isinstance(required, list) else 0
    if isinstance(min_properties, int) and min_properties > max(1, required_count):  # an answer may repeat a name
        yield f"`minProperties` {min_properties} needs as many `required` properties."
    low, high = _numbers(part, "minimum", "exclusiveMinimum"), _numbers(part, "maximum", "exclusiveMaximum")
    near = bool(low and high) and min(high) - max(low) < 1 and any(bound % 1 == 0 for bound in (*low, *high))
    if near and not part.keys().isdisjoint(("exclusiveMinimum", "exclusiveMaximum")):
        yield "exclusive bounds that differ by less than 1 are not supported; use `minimum` and `maximum`."


def _numbers(part: Mapping[str, object], *keys: str) -> list[float]:
    values = [part.get(key) for key in keys]
    return [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
