"""The process in which model-written code runs: confined first, then told what to run.

Nothing that it answers is trusted. It is told one expression at a time, and never what is expected.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import types
from typing import Any, NoReturn

from bilora.sandbox.confinement import Layers, Limits, confine
from bilora.sandbox.values import Unspeakable, encode
from bilora.sandbox.wire import MAX_BYTES, Channel

_NULL, _SOCKET = 1, 3
"""Standard output is the null device already; the zygote's end of its channel gives way to it."""


def live(descriptor: int, limits: Limits, layers: Layers) -> NoReturn:
    """Confine this freshly forked process, then run what the referee sends, until it is killed."""
    channel = _isolate(descriptor)
    module = types.ModuleType("candidate")
    sys.modules["candidate"] = module
    confine(limits, layers)
    channel.send("confined")
    while True:
        _answer(channel, json.loads(channel.receive()), module.__dict__)


def _isolate(descriptor: int) -> Channel:
    os.setsid()
    os.dup2(descriptor, _SOCKET)
    os.dup2(_NULL, 0)
    os.closerange(_SOCKET + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_IGN)
    return Channel(socket.socket(fileno=_SOCKET))


def _answer(channel: Channel, question: dict[str, str], namespace: dict[str, Any]) -> None:
    reply: dict[str, Any] = {"id": question["id"]}
    try:
        if "expression" in question:
            code = compile(question["expression"], "<test>", "eval", dont_inherit=True)
            reply["value"] = encode(eval(code, namespace))
        else:
            code = compile(question["statements"], "<code>", "exec", dont_inherit=True)
            exec(code, namespace)
            reply["value"] = True
        if len(json.dumps(reply)) > MAX_BYTES:
            raise Unspeakable("a value larger than the referee reads")
    except Unspeakable as error:
        reply = {"id": question["id"], "failure": f"gave {error}"}
    except BaseException as error:
        reply = {"id": question["id"], "failure": f"raised {_described(error)}"}
    channel.send(reply)


def _described(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:500].removesuffix(": ")
    except BaseException:
        return "an exception that cannot be shown"
