"""The process that runs model-written code. It is confined before it receives any code.

Its replies are not trusted. It receives one request at a time, and no expected value of an assert decided outside.
"""

from __future__ import annotations

import functools
import json
import sys
import types
from typing import TYPE_CHECKING, NoReturn

from bilora.sandbox.confinement import Layers, Limits, confine
from bilora.sandbox.isolation import isolate
from bilora.sandbox.objects import Objects, replace_content
from bilora.sandbox.values import NotSerializable, encode_value
from bilora.sandbox.wire import MAX_BYTES, Channel

if TYPE_CHECKING:
    from bilora.sandbox.messages import CallbackResult, CandidateReply, CandidateRequest, RequestOrResult


def run_candidate(descriptor: int, limits: Limits, layers: Layers) -> NoReturn:
    """Confine this newly forked process, then answer requests until it is killed."""
    channel = isolate(descriptor)
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
        """The objects that a tester uses; made on first use, because most programs need no tester."""
        return Objects(self._namespace, self._call_back)

    def answer(self, request: CandidateRequest) -> None:
        """Answer one request, with the id of the last one received: a callback may have received others."""
        self._id = request["id"]
        reply: CandidateReply
        try:
            reply = self._reply_to(request)
            if len(json.dumps(reply)) > MAX_BYTES:
                raise NotSerializable("a value larger than the referee reads")
        except NotSerializable as error:
            reply = {"failure": f"gave {error}"}
        except BaseException as error:
            text = _describe_error(error)
            reply = {"failure": f"raised {text}"}
            if "operation" in request:
                reply["raised"] = self._objects.write(error)
        self._channel.send({"id": self._id, **reply})

    def _reply_to(self, request: CandidateRequest) -> CandidateReply:
        if "expression" in request:
            code = compile(request["expression"], "<test>", "eval", dont_inherit=True)
            return {"value": encode_value(eval(code, self._namespace))}
        if "statements" in request:
            code = compile(request["statements"], "<code>", "exec", dont_inherit=True)
            exec(code, self._namespace)
            return {"value": True}
        if "names" in request:
            return {"value": [self._objects.describe(name) for name in request["names"]]}
        return self._objects.perform(request)

    def _call_back(self, number: int, arguments: tuple[object, ...], keywords: dict[str, object]) -> object:
        """Call a function of the test, and answer the requests that it sends before it returns."""
        tagged = [self._objects.write(argument) for argument in arguments]
        tagged_keywords = {key: self._objects.write(argument) for key, argument in keywords.items()}
        self._channel.send({"id": self._id, "callback": [number, tagged, tagged_keywords]})
        while True:
            message: RequestOrResult = json.loads(self._channel.receive())
            self._id = message["id"]
            if "changed" in message:
                return self._apply_result(message, arguments)
            self.answer(message)

    def _apply_result(self, result: CallbackResult, arguments: tuple[object, ...]) -> object:
        """Apply a callback's changes to its arguments, then return its value or raise its exception."""
        for index, changed in result["changed"]:
            replace_content(arguments[index], self._objects.read(changed))
        if "returned" in result:
            return self._objects.read(result["returned"])
        raise self._objects.read(result["raising"])


def _describe_error(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:500].removesuffix(": ")
    except BaseException:
        return "an exception that cannot be printed"
