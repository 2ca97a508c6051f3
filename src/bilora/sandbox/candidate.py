"""The process in which model-written code runs. It is confined before any code is sent to it.

Nothing that it replies is trusted. It receives one question at a time, and never what a test expects.
"""

from __future__ import annotations

import functools
import json
import sys
import types
from typing import TYPE_CHECKING, NoReturn

from bilora.sandbox.confinement import Layers, Limits, confine
from bilora.sandbox.isolation import isolated
from bilora.sandbox.objects import Objects, replace
from bilora.sandbox.values import NotSerializable, encode_value
from bilora.sandbox.wire import MAX_BYTES, Channel

if TYPE_CHECKING:
    from bilora.sandbox.messages import CallbackResult, CandidateReply, Question, QuestionOrResult


def run_candidate(descriptor: int, limits: Limits, layers: Layers) -> NoReturn:
    """Confine this newly forked process, then answer the questions that it is sent, until it is killed."""
    channel = isolated(descriptor)
    module = types.ModuleType("candidate")
    sys.modules["candidate"] = module
    confine(limits, layers)
    channel.send("confined")
    candidate = _Candidate(channel, module.__dict__)
    while True:
        candidate.answer(json.loads(channel.receive()))


class _Candidate:
    def __init__(self, channel: Channel, namespace: dict[str, object]) -> None:
        self._channel = channel
        self._namespace = namespace
        self._id = ""

    @functools.cached_property
    def _objects(self) -> Objects:
        """The objects that a tester uses; most programs need no tester, and start faster without."""
        return Objects(self._namespace, self._call_back)

    def answer(self, question: Question) -> None:
        """Answer one question. The reply has the id of the last one received: callbacks may have brought others."""
        self._id = question["id"]
        reply: CandidateReply
        try:
            reply = self._reply_to(question)
            if len(json.dumps(reply)) > MAX_BYTES:
                raise NotSerializable("a value larger than the referee reads")
        except NotSerializable as error:
            reply = {"failure": f"gave {error}"}
        except BaseException as error:
            text = _described(error)
            reply = {"failure": f"raised {text}"}
            if "operation" in question:
                reply["raised"] = self._objects.write(error)
        self._channel.send({"id": self._id, **reply})

    def _reply_to(self, question: Question) -> CandidateReply:
        if "expression" in question:
            code = compile(question["expression"], "<test>", "eval", dont_inherit=True)
            return {"value": encode_value(eval(code, self._namespace))}
        if "statements" in question:
            code = compile(question["statements"], "<code>", "exec", dont_inherit=True)
            exec(code, self._namespace)
            return {"value": True}
        if "names" in question:
            return {"value": [self._objects.describe(name) for name in question["names"]]}
        return self._objects.perform(question)

    def _call_back(self, number: int, arguments: tuple[object, ...], keywords: dict[str, object]) -> object:
        """Call a function of the test; it may ask further questions before it returns."""
        tagged = [self._objects.write(argument) for argument in arguments]
        tagged_keywords = {key: self._objects.write(argument) for key, argument in keywords.items()}
        self._channel.send({"id": self._id, "callback": [number, tagged, tagged_keywords]})
        while True:
            message: QuestionOrResult = json.loads(self._channel.receive())
            self._id = message["id"]
            if "changed" in message:
                return self._finish(message, arguments)
            self.answer(message)

    def _finish(self, result: CallbackResult, arguments: tuple[object, ...]) -> object:
        """Apply the changes of a function of the test to its arguments, then return or raise what it did."""
        for index, changed in result["changed"]:
            replace(arguments[index], self._objects.read(changed))
        if "returned" in result:
            return self._objects.read(result["returned"])
        raise self._objects.read(result["raising"])


def _described(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:500].removesuffix(": ")
    except BaseException:
        return "an exception that cannot be shown"
