"""The process that runs tests: confined like the program's process, but separate from it.

In the tests, the program's names are proxies that call the program's process. That process returns data, and
receives no expected value of an assert that is decided here.
"""

from __future__ import annotations

import ast
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
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NoReturn, TypeVar

from bilora.sandbox import assertions, instrumentation, program_names
from bilora.sandbox.confinement import Layers, Limits, confine
from bilora.sandbox.isolation import isolate
from bilora.sandbox.proxies import Remote, Undecidable, is_remote
from bilora.sandbox.remote import RemoteProgram
from bilora.sandbox.values import NotSerializable
from bilora.sandbox.wire import Channel

if TYPE_CHECKING:
    from bilora.sandbox.messages import CandidateReply, TestReport

_T = TypeVar("_T")
_SHOWN_CHARS = 100
_OPERATORS: dict[str, Callable[..., object]] = {
    "Eq": lambda a, b: a == b,
    "NotEq": lambda a, b: a != b,
    "Lt": lambda a, b: a < b,
    "LtE": lambda a, b: a <= b,
    "Gt": lambda a, b: a > b,
    "GtE": lambda a, b: a >= b,
    "Is": lambda a, b: _is_same(a, b),
    "IsNot": lambda a, b: not _is_same(a, b),
    "In": lambda a, b: a in b,
    "NotIn": lambda a, b: a not in b,
}


def run_tester(descriptor: int, limits: Limits, layers: Layers) -> NoReturn:
    """Confine this newly forked process, then run the tests that the referee sends, until it is killed."""
    channel = isolate(descriptor)
    confine(limits, layers)
    channel.send("confined")
    tester = _Tester(channel)
    while True:
        message = json.loads(channel.receive())
        channel.send({"done": tester.set_up(**message) if "setup" in message else tester.run(**message)})


class _Recorder:
    """Counts the asserts about the program, and how many of them were decided in this process."""

    def __init__(self, program: RemoteProgram) -> None:
        self._program = program
        self.counted = self.outside = 0
        self.fault = ""

    def begin(self) -> int:
        """Return the number of operations before an assert."""
        return self._program.operations

    def compare(self, before: int, kind: str, left: object, right: object, text: str, mentions: bool) -> bool:
        """Return the truth of an assert that compares two values."""
        holds = bool(_OPERATORS[kind](left, right))
        other = f", not {_short_repr(right)}" if kind in ("Eq", "Is") else ""
        return self._record(before, holds, mentions, lambda: f"assert {text} gave {_short_repr(left)}{other}")

    def decide(self, before: int, value: object, text: str, mentions: bool) -> bool:
        """Return the truth of any other assert."""
        return self._record(before, bool(value), mentions, lambda: f"assert {text} gave {_short_repr(value)}")

    def expected(self, before: int, value: object, mentions: bool) -> object:
        """Record an expectation that was met (otherwise the test would have raised before), and return `value`."""
        self._record(before, True, mentions, str)
        return value

    def _record(self, before: int, holds: bool, mentions: bool, describe: Callable[[], str]) -> bool:
        program = self._program
        if program.operations > before or (mentions and program.operations):
            self.counted += 1
            self.outside += program.trusted
        if not holds and not self.fault:
            self.fault = describe()
        return holds


def _recording_failure_class(recorder: _Recorder) -> type[AssertionError]:
    """Return the class that unittest raises for a failed assert; it is recorded even if the test catches it."""

    class Failure(AssertionError):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            recorder.fault = recorder.fault or _describe_error(AssertionError(*arguments))

    return Failure


class _Tester:
    """The tests of one program, which share a namespace like those of a file."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._program = RemoteProgram(self._exchange)
        self._recorder = _Recorder(self._program)
        self._module = types.ModuleType("__main__")
        self._names = self._module.__dict__
        self._tracked = instrumentation.TrackedNames(())
        self._dynamic_names: list[str] = []
        self._candidate: object = None

    def set_up(self, setup: str, names: list[str], modules: list[str], candidate: str) -> TestReport:
        """Bind the program's names, then run the setup.

        Args:
            names: names that the tests use and only the program can define.
            modules: standard library modules that the tests use without importing them.
            candidate: name of the function to pass to a `check` that no test calls.
        """
        sys.modules["__main__"] = self._module
        unittest.main = lambda *_, **__: None  # type: ignore[assignment]  # the tester runs each test case
        seed = random.seed
        random.seed = lambda *arguments: (seed(*arguments), self._program.perform("seed", *arguments))[0]
        unittest.mock._patch.__enter__ = _restrict_patch(unittest.mock._patch.__enter__)  # type: ignore[method-assign]
        unittest.TestCase.failureException = _recording_failure_class(self._recorder)
        for name in ("asdict", "astuple", "is_dataclass", "replace"):
            setattr(dataclasses, name, self._program.dispatch(getattr(dataclasses, name)))
        self._names.update(
            {
                instrumentation.BEGIN: self._recorder.begin,
                instrumentation.COMPARE: self._recorder.compare,
                instrumentation.DECIDE: self._recorder.decide,
                instrumentation.EXPECTATION: self._recorder.expected,
            }
        )

        def bind() -> None:
            for module in modules:
                self._names[module] = __import__(module)
            bound, self._dynamic_names = self._program.bind(sorted({*names, *filter(None, [candidate])}))
            self._candidate = bound.get(candidate)
            if candidate not in names:
                bound.pop(candidate, None)
            if self._candidate is not None:
                bound.setdefault(program_names.CANDIDATE_NAME, self._candidate)
            self._names.update(bound)
            self._tracked = instrumentation.TrackedNames(bound)

        report = self._attempt(bind)
        if report["passed"]:
            # The setup has passed in the program's process, so a failure here is not the program's.
            setup_report = self._attempt(lambda: self._execute(setup))
            report["inside"] = setup_report["inside"] or setup_report["detail"]
        return report

    def run(self, test: str, called: list[str]) -> TestReport:
        """Run one test, and the test functions and classes that it defines, except those in `called`."""

        def run() -> None:
            for node in assertions.entry_points(self._execute(test)):
                if node.name not in called:
                    self._run_entry(node.name)

        return self._attempt(run)

    def _execute(self, source: str) -> ast.Module:
        """Run a source with instrumented asserts; return its original tree."""
        tree = assertions.parse_or_none(source)
        if tree is None:
            compile(source, "<test>", "exec", dont_inherit=True)  # raises the exact error
            raise ValueError("the test cannot be parsed")
        code = compile(
            instrumentation.instrument(tree, self._tracked, self._dynamic_names), "<test>", "exec", dont_inherit=True
        )
        exec(code, self._names)
        return assertions.parse_or_none(source) or tree

    def _run_entry(self, name: str) -> None:
        entry = self._names[name]
        if isinstance(entry, type):
            (_run_case if issubclass(entry, unittest.TestCase) else _run_methods)(entry)
            return
        if name == assertions.CHECK_FUNCTION and self._candidate is None:
            raise NameError("check(candidate) is not called, and the program defines no function")
        result = entry(self._candidate) if name == assertions.CHECK_FUNCTION else entry()
        if inspect.iscoroutine(result):
            asyncio.run(result)

    def _attempt(self, action: Callable[[], object]) -> TestReport:
        """Run an action that may fail in any way; return its result and the asserts that it counted."""
        recorder = self._recorder
        counted, outside, recorder.fault = recorder.counted, recorder.outside, ""
        inside, detail = "", ""
        try:
            action()
        except Undecidable as error:
            inside = str(error)
        except (NotSerializable, AssertionError) as error:
            detail = recorder.fault or (str(error) if isinstance(error, NotSerializable) else _describe_error(error))
        except BaseException as error:
            detail = _describe_error(error)
        detail = detail or recorder.fault
        return {
            "passed": not detail and not inside,
            "detail": detail,
            "inside": inside,
            "counted": recorder.counted - counted,
            "outside": recorder.outside - outside,
        }

    def _exchange(self, request: Mapping[str, object]) -> CandidateReply:
        nonce = secrets.token_hex(16)
        self._channel.send({"request": {"id": nonce, **request}})
        reply = json.loads(self._channel.receive())
        if not isinstance(reply, dict) or reply.get("id") != nonce:
            raise NotSerializable("was answered out of turn")
        unchecked: CandidateReply = reply  # type: ignore[assignment]  # RemoteProgram handles any fields
        return unchecked


def _restrict_patch(enter: Callable[[unittest.mock._patch[_T]], _T]) -> Callable[[unittest.mock._patch[_T]], _T]:
    """Return a `patch.__enter__` that replaces only standard output: other objects are in the program's process."""

    def patch(self: unittest.mock._patch[_T]) -> _T:
        if self.attribute not in ("stdout", "stderr"):
            raise Undecidable(f"the test replaces {self.attribute}")
        return enter(self)

    return patch


def _run_case(case: type[unittest.TestCase]) -> None:
    """Run the methods of a test case and raise the first failure."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    for _, trace in (*result.failures, *result.errors):
        raise AssertionError(trace.strip().splitlines()[-1])
    if result.unexpectedSuccesses:
        raise AssertionError("a test that was expected to fail passed")


def _run_methods(tests: type) -> None:
    """Run the methods of a test class as pytest does, each on a new instance."""
    for name in [name for name in vars(tests) if name.startswith("test")]:
        instance = tests()
        for part in ("setup_method", name, "teardown_method"):
            if hasattr(instance, part):
                result = getattr(instance, part)()
                if inspect.iscoroutine(result):
                    asyncio.run(result)


def _is_same(a: object, b: object) -> bool:
    """Return `a is b`, if this process can decide it."""
    if is_remote(a) and is_remote(b):
        a._bilora_program.trusted = False
        return a is b
    classes = any(isinstance(value, type) and issubclass(value, Remote) for value in (a, b))
    if not classes and any(value is None or value is ... or isinstance(value, bool | type) for value in (a, b)):
        return a is b
    raise Undecidable("the test compares objects by identity")


def _short_repr(value: object) -> str:
    try:
        return repr(value)[:_SHOWN_CHARS]
    except BaseException:
        return f"a value of type {type(value).__name__} too long to show"


def _describe_error(error: BaseException) -> str:
    text = getattr(error, "shown_as", None)
    if text is None:
        try:
            text = f"{type(error).__name__}: {error}".removesuffix(": ")
        except BaseException:
            text = "an exception that cannot be printed"
    return f"raised {text[:500]}"
