"""Encoding and decoding of values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bilora.sandbox.values import MAX_BITS, MAX_NESTING, NotSerializable, decode_value, encode_value

PLAIN: list[Any] = [
    *(None, True, False, 0, -1, 10**50, 0.1, -0.0, float("inf"), 1 + 2j, "", "\ud800\0", b"\x00\xff"),
    *([], [1, [2]], (1, (2,)), {1, "a"}, frozenset({(1, 2)}), {}, {(1, 2): [3], None: {}}),
]


@pytest.mark.parametrize("value", PLAIN)
def test_a_plain_value_survives_the_wire(value: Any) -> None:
    back = decode_value(json.loads(json.dumps(encode_value(value))))
    assert (type(back), repr(back)) == (type(value), repr(value))


@pytest.mark.parametrize("value", [object(), print, iter(()), range(3), [object()], {1: ...}])
def test_other_objects_are_refused(value: Any) -> None:
    with pytest.raises(NotSerializable):
        encode_value(value)


def nest(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", [nest(MAX_NESTING + 1), [0] * 200_000, 1 << MAX_BITS], ids=type)
def test_a_value_that_is_too_large_is_refused(value: Any) -> None:
    with pytest.raises(NotSerializable):
        encode_value(value)


def tagged_nest(depth: int) -> Any:
    value: Any = True
    for _ in range(depth):
        value = ["list", [value]]
    return value


@pytest.mark.parametrize(
    "tagged",
    [
        7,
        1.5,
        [],
        ["int"],
        ["int", "x"],
        ["int", 5],
        ["int", "f" * (MAX_BITS // 4 + 1)],
        ["float", "one"],
        ["set", [["list", []]]],
        ["dict", [[1, 2]]],
        ["dict", [[["list", []], None]]],
        ["pickle", "gASVBAAAAAAAAABLKi4="],
        ["complex", ["0x1p0"]],
        [["list"], []],
        {"a": 1},
        ["list", [None] * 200_000],
        tagged_nest(MAX_NESTING + 1),
    ],
    ids=lambda tagged: str(tagged)[:30],
)
def test_a_forged_message_is_refused(tagged: Any) -> None:
    with pytest.raises(NotSerializable):
        decode_value(tagged)
