"""Weighing one reply: is it an answer to this question, and is the answer right?"""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from typing import Any

from bilora.sandbox.values import Unspeakable, decode

_INLINE_BYTES = 1 << 16
"""A longer reply could be built to be slow to compare, and goes to a process that may be killed."""

_CPU_S = 5
_DETAIL_CHARS = 300

Verdict = tuple[bool, str]
"""Whether the answer is right, and what it was."""


def weigh(reply: bytes, nonce: str, expected: Any, check: Callable[[Any, Any], bool]) -> Verdict:
    """Compare the value in `reply` with `expected`, in bounded time, whatever the reply holds."""
    if len(reply) <= _INLINE_BYTES:
        return _examine(reply, nonce, expected, check)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
            passed, detail = _examine(reply, nonce, expected, check)
            os.write(writing, json.dumps([passed, detail]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answer:  # noqa: PTH123 - a descriptor, not a path
        data = answer.read()
    os.waitpid(pid, 0)
    if not data:
        return False, "gave a value that could not be compared in time"
    passed, detail = json.loads(data)
    return passed, detail


def _examine(reply: bytes, nonce: str, expected: Any, check: Callable[[Any, Any], bool]) -> Verdict:
    try:
        message = json.loads(reply)
        if not isinstance(message, dict) or message.get("id") != nonce:
            return False, "was answered out of turn"
        if "value" not in message:
            return False, str(message.get("failure"))[:_DETAIL_CHARS]
        value = decode(message["value"])
    except (Unspeakable, ValueError, RecursionError) as error:
        return False, f"was not answered properly ({type(error).__name__})"
    return bool(check(value, expected)), f"gave {_shown(value)}, not {_shown(expected)}"


def _shown(value: Any) -> str:
    try:
        return repr(value)[:100]
    except (ValueError, RecursionError):
        return f"a value of type {type(value).__name__} too long to show"
