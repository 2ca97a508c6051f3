"""Plain values as bounded, tagged JSON: data only, so a forged reply is no more than a wrong answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MAX_NODES = 200_000
MAX_DEPTH = 60
MAX_BITS = 200_000


class Unspeakable(Exception):
    """The value, or the claim to be one, is not plain data within the bounds."""


_COLLECTIONS: dict[type, str] = {list: "list", tuple: "tuple", set: "set", frozenset: "frozenset"}
_SCALARS: dict[type, tuple[str, Callable[[Any], str]]] = {
    int: ("int", lambda value: hex(_bounded(int.__index__(value)))),
    float: ("float", float.hex),
    bytes: ("bytes", bytes.hex),
    bytearray: ("bytes", bytearray.hex),
}
_BUILDERS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}
_READERS: dict[str, Callable[[str], Any]] = {
    "int": lambda text: _bounded(int(text, 16)),
    "float": float.fromhex,
    "bytes": bytes.fromhex,
}


def encode(value: Any) -> Any:
    """Turn a value into JSON-ready data.

    An instance of a subclass (a named tuple, a Counter) is sent as the builtin value it carries, so
    no method that it overrides, `__eq__` above all, has a say.

    Raises:
        Unspeakable: another type stands in it, or it is too large, too deep or cyclic.
    """
    return _Encoder().encode(value, 0)


def decode(tagged: Any) -> Any:
    """Rebuild the value that `encode` described, trusting nothing about `tagged`.

    Raises:
        Unspeakable: `tagged` is not something that `encode` would write.
    """
    try:
        return _Decoder().decode(tagged, 0)
    except (ValueError, TypeError, OverflowError, KeyError, RecursionError) as error:
        raise Unspeakable(f"a malformed reply ({type(error).__name__})") from None


def _bounded(value: int) -> int:
    if value.bit_length() > MAX_BITS:
        raise Unspeakable(f"an integer of {value.bit_length()} bits")
    return value


class _Counter:
    def __init__(self) -> None:
        self._nodes = 0

    def visit(self, depth: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise Unspeakable(f"a value of more than {MAX_NODES} parts")
        if depth > MAX_DEPTH:
            raise Unspeakable(f"a value nested deeper than {MAX_DEPTH}")


class _Encoder(_Counter):
    def encode(self, value: Any, depth: int) -> Any:
        self.visit(depth)
        if value is None or value is True or value is False:
            return value
        for kind in type(value).__mro__:
            if kind is str:
                return str.__str__(value)
            if kind in _SCALARS:
                tag, write = _SCALARS[kind]
                return [tag, write(value)]
            if kind is complex:
                exact = complex.__pos__(value)
                return ["complex", [exact.real.hex(), exact.imag.hex()]]
            if kind in _COLLECTIONS:
                items: Any = kind.__iter__(value)  # type: ignore[attr-defined]
                return [_COLLECTIONS[kind], [self.encode(item, depth + 1) for item in items]]
            if kind is dict:
                pairs = dict.items(value)
                return [
                    "dict",
                    [[self.encode(key, depth + 1), self.encode(item, depth + 1)] for key, item in pairs],
                ]
        raise Unspeakable(f"an object of type {type(value).__name__}")


class _Decoder(_Counter):
    def decode(self, tagged: Any, depth: int) -> Any:
        self.visit(depth)
        if tagged is None or isinstance(tagged, bool | str):
            return tagged
        tag, payload = tagged
        if tag in _READERS:
            return _READERS[tag](payload)
        if tag == "complex":
            real, imaginary = payload
            return complex(float.fromhex(real), float.fromhex(imaginary))
        if tag == "dict":
            return {self.decode(key, depth + 1): self.decode(item, depth + 1) for key, item in payload}
        return _BUILDERS[tag]([self.decode(item, depth + 1) for item in payload])
