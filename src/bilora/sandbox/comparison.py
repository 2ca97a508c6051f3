"""Check one reply of the program: its id, its format and its value."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from typing import NamedTuple

from bilora.sandbox.values import NotSerializable, decode_value

_INLINE_BYTES = 1 << 16
"""A longer reply is compared in a process with a CPU limit: the program may have made it slow to compare."""

_CPU_S = 5
_DETAIL_CHARS = 300

_Check = Callable[[object, object], bool]
"""Returns whether a value is right, given the value and the expected value."""


class CheckResult(NamedTuple):
    """Whether the reply is right, and what it was."""

    passed: bool
    detail: str


def check_reply(reply: bytes, nonce: str, expected: object, check: _Check) -> CheckResult:
    """Compare the value in `reply` with `expected` in bounded time, whatever the reply contains."""
    if len(reply) <= _INLINE_BYTES:
        return _compare(reply, nonce, expected, check)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
            os.write(writing, json.dumps(_compare(reply, nonce, expected, check)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:  # noqa: PTH123 - a descriptor, not a path
        data = pipe.read()
    os.waitpid(pid, 0)
    if not data:
        return CheckResult(False, "gave a value that could not be compared in time")
    return CheckResult(*json.loads(data))


def _compare(reply: bytes, nonce: str, expected: object, check: _Check) -> CheckResult:
    try:
        message = json.loads(reply)
        if not isinstance(message, dict) or message.get("id") != nonce:
            return CheckResult(False, "was answered out of turn")
        if "value" not in message:
            return CheckResult(False, str(message.get("failure"))[:_DETAIL_CHARS])
        value = decode_value(message["value"])
    except (NotSerializable, ValueError, RecursionError) as error:
        return CheckResult(False, f"was not answered properly ({type(error).__name__})")
    return CheckResult(bool(check(value, expected)), f"gave {_short_repr(value)}, not {_short_repr(expected)}")


def _short_repr(value: object) -> str:
    try:
        return repr(value)[:100]
    except (ValueError, RecursionError):
        return f"a value of type {type(value).__name__} too long to show"
