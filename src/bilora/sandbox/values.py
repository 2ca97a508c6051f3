"""Encode values as bounded, tagged JSON: only data, so a forged reply is just a wrong answer."""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import fractions
import types
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bilora.sandbox.messages import Json

MAX_NODES = 200_000
MAX_NESTING = 60
MAX_BITS = 200_000


class NotSerializable(Exception):
    """A value or its encoding is not plain data within the bounds."""


WriteObject = Callable[[object, "Json"], "Json"]
"""Encodes an object that is not plain data, given the encoded builtin value that it extends, or None."""
Readers = dict[str, Callable[[Any], object]]
"""By tag: decodes what a `WriteObject` wrote, from a payload that may be anything."""

_COLLECTIONS: dict[type, str] = {list: "list", tuple: "tuple", set: "set", frozenset: "frozenset"}
_SCALARS: dict[type, tuple[str, Callable[..., str]]] = {
    int: ("int", lambda value: hex(_bounded_int(int.__index__(value)))),
    float: ("float", float.hex),
    bytes: ("bytes", bytes.hex),
    bytearray: ("bytearray", bytearray.hex),
}
_BUILDERS: dict[str, Callable[[list[object]], object]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}
_READERS: dict[str, Callable[[str], object]] = {
    "int": lambda text: _bounded_int(int(text, 16)),
    "float": float.fromhex,
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
}

# The standard library's value types, by exact type, so that a method overridden in a subclass is never called.
# Each is encoded as plain data and rebuilt from it, so that its builtin `==` decides.
_EXACT: dict[type, tuple[str, Callable[..., Any]]] = {
    fractions.Fraction: ("fraction", lambda value: [value.numerator, value.denominator]),
    decimal.Decimal: ("decimal", str),
    type({}.keys()): ("keys", list),
    type({}.items()): ("items", list),
    types.MappingProxyType: ("mapping", dict),
    collections.UserDict: ("mapping", lambda value: dict(value.data)),
    collections.ChainMap: ("mapping", dict),
    collections.OrderedDict: ("ordered", dict),
    collections.Counter: ("counter", dict),
    collections.defaultdict: ("default", lambda value: [value.default_factory, list(dict.items(value))]),
    collections.UserList: ("list", lambda value: list(value.data)),
    collections.UserString: ("text", lambda value: str(value.data)),
    collections.deque: ("deque", lambda value: [list(value), value.maxlen]),
    memoryview: ("bytes", lambda value: value.tobytes().hex()),
    array.array: ("array", lambda value: [value.typecode, list(value)]),
    datetime.date: ("date", lambda value: value.isoformat()),
    datetime.time: ("time", lambda value: value.isoformat()),
    datetime.datetime: ("datetime", lambda value: value.isoformat()),
    datetime.timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
}
_TEXT_TAGS = ("decimal", "text", "bytes", "date", "time", "datetime")
"""Tags whose payload is a string that is sent unchanged."""

_EXACT_READERS: dict[str, Callable[[Any], object]] = {
    "fraction": lambda parts: fractions.Fraction(*parts),
    "decimal": decimal.Decimal,
    "mapping": dict,
    "keys": lambda parts: dict.fromkeys(parts).keys(),
    "items": lambda parts: dict(parts).items(),
    "default": lambda parts: collections.defaultdict(parts[0], parts[1]),
    "ordered": collections.OrderedDict,
    "counter": collections.Counter,
    "text": str,
    "deque": lambda parts: collections.deque(*parts),
    "array": lambda parts: array.array(*parts),
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "datetime": datetime.datetime.fromisoformat,
    "timedelta": lambda parts: datetime.timedelta(*parts),
}


def encode_value(value: object, write_object: WriteObject | None = None) -> Json:
    """Return a value as JSON-compatible data.

    An instance of a subclass (a named tuple, an IntEnum) is encoded as the builtin value that it extends, so that
    no overridden method such as `__eq__` is called. The standard library's value types are encoded as values that
    Python considers equal.

    Args:
        write_object: encodes objects that are not plain data; without it they are refused.

    Raises:
        NotSerializable: the value contains another type, or is too large, too deep or cyclic.
    """
    return _Encoder(write_object).encode(value, 0)


def decode_value(tagged: object, readers: Readers | None = None) -> Any:
    """Return the value that `encode_value` encoded as `tagged`, which is not trusted.

    Raises:
        NotSerializable: `tagged` is malformed or exceeds the bounds.
    """
    try:
        return _Decoder(readers or {}).decode(tagged, 0)
    except (ValueError, TypeError, OverflowError, KeyError, ArithmeticError, RecursionError) as error:
        raise NotSerializable(f"a malformed reply ({type(error).__name__})") from None


def _bounded_int(value: int) -> int:
    if value.bit_length() > MAX_BITS:
        raise NotSerializable(f"an integer of {value.bit_length()} bits")
    return value


class _Counter:
    def __init__(self) -> None:
        self._nodes = 0

    def visit(self, depth: int) -> None:
        """Count one node; refuse a value that has too many or is nested too deeply."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise NotSerializable(f"a value of more than {MAX_NODES} parts")
        if depth > MAX_NESTING:
            raise NotSerializable(f"a value nested deeper than {MAX_NESTING}")


class _Encoder(_Counter):
    def __init__(self, write_object: WriteObject | None) -> None:
        super().__init__()
        self._write_object = write_object

    def encode(self, value: object, depth: int) -> Json:
        self.visit(depth)
        if value is None or value is True or value is False:
            return value
        kind = type(value)
        if kind is str:
            return value  # type: ignore[return-value]  # `isinstance` would also accept subclasses
        if kind in _EXACT:
            return self._encode_exact(value, depth)
        for base in kind.__mro__:
            if base is str or base in _SCALARS or base is complex or base in _COLLECTIONS or base is dict:
                encoded = self._encode_builtin(value, base, depth)
                return self._write_object(value, encoded) if self._write_object and base is not kind else encoded
        if self._write_object:
            return self._write_object(value, None)
        raise NotSerializable(f"an object of type {kind.__name__}")

    def _encode_builtin(self, value: Any, base: type, depth: int) -> Json:
        """Return the encoded builtin value of type `base` that `value` is, read by that type's methods."""
        if base is str:
            return str.__str__(value)
        if base in _SCALARS:
            tag, write = _SCALARS[base]
            return [tag, write(value)]
        if base is complex:
            exact = complex.__pos__(value)
            return ["complex", [exact.real.hex(), exact.imag.hex()]]
        if base is dict:
            return ["dict", self._pairs(dict.items(value), depth)]
        items: Iterable[object] = base.__iter__(value)  # type: ignore[attr-defined]
        return [_COLLECTIONS[base], [self.encode(item, depth + 1) for item in items]]

    def _encode_exact(self, value: object, depth: int) -> Json:
        tag, parts = _EXACT[type(value)]
        payload = parts(value)
        if tag == "default" and not self._write_object:
            payload[0] = None  # the default factory is not part of its value
        if tag in _TEXT_TAGS:
            return [tag, payload]
        if isinstance(payload, dict):
            return [tag, self._pairs(payload.items(), depth)]
        return [tag, [self.encode(item, depth + 1) for item in payload]]

    def _pairs(self, pairs: Iterable[tuple[object, object]], depth: int) -> Json:
        return [[self.encode(key, depth + 1), self.encode(item, depth + 1)] for key, item in pairs]


class _Decoder(_Counter):
    def __init__(self, readers: Readers) -> None:
        super().__init__()
        self._readers = readers

    def decode(self, tagged: Any, depth: int) -> object:
        self.visit(depth)
        if tagged is None or isinstance(tagged, bool | str):
            return tagged
        tag, payload = tagged
        if tag in _READERS:
            return _READERS[tag](payload)
        if tag == "complex":
            real, imaginary = payload
            return complex(float.fromhex(real), float.fromhex(imaginary))
        if tag in ("dict", "mapping", "ordered", "counter"):
            pairs = {self.decode(key, depth + 1): self.decode(item, depth + 1) for key, item in payload}
            return pairs if tag == "dict" else _EXACT_READERS[tag](pairs)
        if tag in self._readers:
            return self._readers[tag](payload)
        if tag in _TEXT_TAGS:
            return _EXACT_READERS[tag](_bounded_text(payload))
        parts = [self.decode(item, depth + 1) for item in payload]
        return _BUILDERS[tag](parts) if tag in _BUILDERS else _EXACT_READERS[tag](parts)


def _bounded_text(payload: object) -> str:
    if not isinstance(payload, str) or len(payload) > MAX_BITS:
        raise ValueError("not a string of bounded length")
    return payload
