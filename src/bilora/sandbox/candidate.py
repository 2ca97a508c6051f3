"""The process in which model-written code runs: confined first, then sent what to run.

Nothing that it answers is trusted. It is sent one question at a time, and never what is expected.
"""

from __future__ import annotations

import functools
import json
import sys
import types
from typing import Any, NoReturn

from bilora.sandbox.confinement import Layers, Limits, confine
from bilora.sandbox.isolation import isolated
from bilora.sandbox.objects import Objects, replace
from bilora.sandbox.values import Unspeakable, encode
from bilora.sandbox.wire import MAX_BYTES, Channel


def live(descriptor: int, limits: Limits, layers: Layers) -> NoReturn:
    """Confine this freshly forked process, then run what the referee sends, until it is killed."""
    channel = isolated(descriptor)
    module = types.ModuleType("candidate")
    sys.modules["candidate"] = module
    confine(limits, layers)
    channel.send("confined")
    candidate = _Candidate(channel, module.__dict__)
    while True:
        candidate.answer(json.loads(channel.receive()))


class _Candidate:
    def __init__(self, channel: Channel, namespace: dict[str, Any]) -> None:
        self._channel = channel
        self._namespace = namespace
        self._id = ""

    @functools.cached_property
    def _objects(self) -> Objects:
        """What a tester asks for; most programs have none, and start faster without."""
        return Objects(self._namespace, self._call_back)

    def answer(self, question: dict[str, Any]) -> None:
        """Answer one question. A reply bears the id of the last question, for calls back come in between."""
        self._id = question["id"]
        try:
            reply = self._answered(question)
            if len(json.dumps(reply)) > MAX_BYTES:
                raise Unspeakable("a value larger than the referee reads")
        except Unspeakable as error:
            reply = {"failure": f"gave {error}"}
        except BaseException as error:
            text = _described(error)
            reply = {"failure": f"raised {text}"}
            if "operation" in question:
                reply["raised"] = self._objects.write(error)
        self._channel.send({"id": self._id, **reply})

    def _answered(self, question: dict[str, Any]) -> dict[str, Any]:
        if "expression" in question:
            code = compile(question["expression"], "<test>", "eval", dont_inherit=True)
            return {"value": encode(eval(code, self._namespace))}
        if "statements" in question:
            code = compile(question["statements"], "<code>", "exec", dont_inherit=True)
            exec(code, self._namespace)
            return {"value": True}
        if "names" in question:
            return {"value": [self._objects.describe(name) for name in question["names"]]}
        parts = ("operation", "arguments", "keywords", "number", "printing", "updates")
        return self._objects.perform(*(question[part] for part in parts))

    def _call_back(self, number: int, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Call a function of the test; it may ask further questions before it returns."""
        tagged = [self._objects.write(one) for one in arguments]
        named = {key: self._objects.write(one) for key, one in keywords.items()}
        self._channel.send({"id": self._id, "callback": [number, tagged, named]})
        while True:
            question = json.loads(self._channel.receive())
            self._id = question["id"]
            for index, changed in question.get("changed", ()):
                replace(arguments[index], self._objects.read(changed))
            if "returned" in question:
                return self._objects.read(question["returned"])
            if "raising" in question:
                raise self._objects.read(question["raising"])
            self.answer(question)


def _described(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:500].removesuffix(": ")
    except BaseException:
        return "an exception that cannot be shown"
