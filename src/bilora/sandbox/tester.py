"""The process that runs a test: as confined as the program, and apart from it.

The program's names stand in the test for calls of the program's process; what comes back is data, and what the
test expects never goes there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import json
import random
import secrets
import sys
import types
import unittest
import unittest.mock
from collections.abc import Callable
from typing import Any, NoReturn

from bilora.sandbox import assertions, instrumentation, program_names
from bilora.sandbox.confinement import Layers, Limits, confine
from bilora.sandbox.isolation import isolated
from bilora.sandbox.proxies import Remote, Undecidable, is_remote
from bilora.sandbox.remote import Program
from bilora.sandbox.values import Unspeakable
from bilora.sandbox.wire import Channel

_SHOWN_CHARS = 100
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "Eq": lambda a, b: a == b,
    "NotEq": lambda a, b: a != b,
    "Lt": lambda a, b: a < b,
    "LtE": lambda a, b: a <= b,
    "Gt": lambda a, b: a > b,
    "GtE": lambda a, b: a >= b,
    "Is": lambda a, b: _same(a, b),
    "IsNot": lambda a, b: not _same(a, b),
    "In": lambda a, b: a in b,
    "NotIn": lambda a, b: a not in b,
}


def live(descriptor: int, limits: Limits, layers: Layers) -> NoReturn:
    """Confine this freshly forked process, then run what the referee sends, until it is killed."""
    channel = isolated(descriptor)
    confine(limits, layers)
    channel.send("confined")
    tester = _Tester(channel)
    while True:
        message = json.loads(channel.receive())
        channel.send({"done": tester.begin(**message) if "setup" in message else tester.run(**message)})


class _Recorder:
    """Counts the asserts that say something of the program, and those of them that were decided here."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.counted = self.outside = 0
        self.fault = ""

    def begin(self) -> int:
        """Note where an assert begins: how many operations the program had done."""
        return self._program.operations

    def compare(self, began: int, kind: str, left: Any, right: Any, text: str, mentions: bool) -> bool:
        """Decide an assert that compares two values."""
        holds = bool(_OPERATORS[kind](left, right))
        other = f", not {_shown(right)}" if kind in ("Eq", "Is") else ""
        return self._decided(began, holds, mentions, lambda: f"assert {text} gave {_shown(left)}{other}")

    def decide(self, began: int, value: Any, text: str, mentions: bool) -> bool:
        """Decide any other assert."""
        return self._decided(began, bool(value), mentions, lambda: f"assert {text} gave {_shown(value)}")

    def expected(self, began: int, value: Any, mentions: bool) -> Any:
        """Note that what a test expects has happened, else an exception would have been raised before."""
        self._decided(began, True, mentions, str)
        return value

    def _decided(self, began: int, holds: bool, mentions: bool, describe: Callable[[], str]) -> bool:
        program = self._program
        if program.operations > began or (mentions and program.operations):
            self.counted += 1
            self.outside += program.trusted
        if not holds and not self.fault:
            self.fault = describe()
        return holds


def _failure(recorder: _Recorder) -> type[AssertionError]:
    """Make what unittest raises where an assert does not hold: it is noted, whoever catches it."""

    class Failure(AssertionError):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            recorder.fault = recorder.fault or _described(AssertionError(*arguments))

    return Failure


class _Tester:
    """The tests of one program, which share one namespace, as in a file."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._program = Program(self._exchange)
        self._recorder = _Recorder(self._program)
        self._module = types.ModuleType("__main__")
        self._names: dict[str, Any] = self._module.__dict__
        self._subject = instrumentation.Subject(())
        self._fresh: list[str] = []
        self._meant: Any = None
        self._waiting: list[tuple[int, Any]] = []

    def begin(self, setup: str, names: list[str], modules: list[str], candidate: str) -> dict[str, Any]:
        """Bind the program's names, then run the setup.

        Args:
            names: what the tests use and only the program can have.
            modules: what the tests use as a module of the standard library.
            candidate: the function that a `check` without a call is for.
        """
        sys.modules["__main__"] = self._module
        unittest.main = lambda *_, **__: None  # type: ignore[assignment]  # test cases are run one by one
        seed = random.seed
        random.seed = lambda *given: (seed(*given), self._program.perform("seed", *given))[0]
        unittest.mock._patch.__enter__ = _patched(unittest.mock._patch.__enter__)  # type: ignore[method-assign]
        unittest.TestCase.failureException = _failure(self._recorder)
        for name in ("asdict", "astuple", "is_dataclass", "replace"):
            setattr(dataclasses, name, self._program.here_or_there(getattr(dataclasses, name)))
        self._names.update(
            {
                instrumentation.BEGIN: self._recorder.begin,
                instrumentation.COMPARE: self._recorder.compare,
                instrumentation.DECIDE: self._recorder.decide,
                instrumentation.EXPECTED: self._recorder.expected,
            }
        )

        def start() -> None:
            for module in modules:
                self._names[module] = __import__(module)
            found, self._fresh = self._program.bind(sorted({*names, *filter(None, [candidate])}))
            self._meant = found.get(candidate)
            if candidate not in names:
                found.pop(candidate, None)
            if self._meant is not None:
                found.setdefault(program_names.CANDIDATE, self._meant)
            self._names.update(found)
            self._subject = instrumentation.Subject(found)

        begun = self._attempt(start)
        if begun["passed"]:
            # The setup ran beside the program before; what keeps it from running here is no fault of the program's.
            prepared = self._attempt(lambda: self._execute(setup))
            begun["inside"] = prepared["inside"] or prepared["detail"]
        return begun

    def run(self, test: str, called: list[str]) -> dict[str, Any]:
        """Run one test; what it defines for a test runner, and that is not in `called`, is run as well."""

        def run() -> None:
            tree = self._execute(test)
            for node in assertions.entry_points(tree):
                if node.name not in called:
                    self._run_entry(node.name)

        return self._attempt(run)

    def _execute(self, source: str) -> Any:
        tree = assertions.parsed(source)
        if tree is None:
            compile(source, "<test>", "exec", dont_inherit=True)  # raises what is wrong with it
            raise ValueError("it cannot be parsed")
        code = compile(
            instrumentation.instrumented(tree, self._subject, self._fresh), "<test>", "exec", dont_inherit=True
        )
        exec(code, self._names)
        return assertions.parsed(source)

    def _run_entry(self, name: str) -> None:
        entry = self._names[name]
        if isinstance(entry, type):
            (_run_case if issubclass(entry, unittest.TestCase) else _run_methods)(entry)
            return
        if name == assertions.CHECK and self._meant is None:
            raise NameError("check(candidate) is not called, and the program defines no function")
        result = entry(self._meant) if name == assertions.CHECK else entry()
        if inspect.iscoroutine(result):
            asyncio.run(result)

    def _attempt(self, deed: Callable[[], Any]) -> dict[str, Any]:
        """Do something that may fail in any way, and report how it went and what was counted meanwhile."""
        recorder = self._recorder
        counted, outside, recorder.fault = recorder.counted, recorder.outside, ""
        inside, detail = "", ""
        try:
            deed()
        except Undecidable as error:
            inside = str(error)
        except (Unspeakable, AssertionError) as error:
            detail = recorder.fault or (str(error) if isinstance(error, Unspeakable) else _described(error))
        except BaseException as error:
            detail = _described(error)
        detail = detail or recorder.fault
        return {
            "passed": not detail and not inside,
            "detail": detail,
            "inside": inside,
            "counted": recorder.counted - counted,
            "outside": recorder.outside - outside,
        }

    def _exchange(self, question: dict[str, Any]) -> dict[str, Any]:
        nonce = secrets.token_hex(16)
        self._channel.send({"ask": {"id": nonce, **question}})
        reply = json.loads(self._channel.receive())
        if not isinstance(reply, dict) or reply.get("id") != nonce:
            raise Unspeakable("was answered out of turn")
        return reply


def _patched(enter: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Let `unittest.mock.patch` replace standard output alone: the rest would have to be replaced in the program."""

    def patch(self: Any) -> Any:
        if self.attribute not in ("stdout", "stderr"):
            raise Undecidable(f"the test replaces {self.attribute}")
        return enter(self)

    return patch


def _run_case(case: type[unittest.TestCase]) -> None:
    """Run the methods of a test case; the first fault is raised."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    for _, trace in (*result.failures, *result.errors):
        raise AssertionError(trace.strip().splitlines()[-1])
    if result.unexpectedSuccesses:
        raise AssertionError("a test that was expected to fail did not")


def _run_methods(tests: type) -> None:
    """Run the methods of a test class as pytest does: each on an object of its own."""
    for name in [name for name in vars(tests) if name.startswith("test")]:
        one = tests()
        for part in ("setup_method", name, "teardown_method"):
            if hasattr(one, part):
                result = getattr(one, part)()
                if inspect.iscoroutine(result):
                    asyncio.run(result)


def _same(a: Any, b: Any) -> bool:
    if is_remote(a) and is_remote(b):
        a._bilora_program.trusted = False
        return a is b
    classes = any(isinstance(one, type) and issubclass(one, Remote) for one in (a, b))
    if not classes and any(one is None or one is ... or isinstance(one, bool | type) for one in (a, b)):
        return a is b
    raise Undecidable("the test asks whether two objects are one")


def _shown(value: Any) -> str:
    try:
        return repr(value)[:_SHOWN_CHARS]
    except BaseException:
        return f"a value of type {type(value).__name__} too long to show"


def _described(error: BaseException) -> str:
    text = getattr(error, "shown_as", None)
    if text is None:
        try:
            text = f"{type(error).__name__}: {error}".removesuffix(": ")
        except BaseException:
            text = "an exception that cannot be shown"
    return f"raised {text[:500]}"
