"""One program's trial: run its code and setup, then decide its tests one by one."""

from __future__ import annotations

import ast
import errno
import json
import operator
import os
import re
import secrets
import signal
import time
from typing import TYPE_CHECKING

from bilora.sandbox import assertions
from bilora.sandbox.comparison import CheckResult, check_reply
from bilora.sandbox.planning import plan_tests
from bilora.sandbox.scheduling import waiting_s
from bilora.sandbox.wire import MAX_BYTES, Channel, ChannelClosed, TooLarge
from bilora.sandbox.zygote import kind_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bilora.sandbox.confinement import Limits
    from bilora.sandbox.forks import ForkedProcess, Zygotes
    from bilora.sandbox.messages import OutcomeFields, ProgramFields, TestReport
    from bilora.sandbox.splitting import SplitAssert

_BOM = "\ufeff"
"""Python removes a byte order mark from a file's source, but not from a string's."""
_DETAIL_CHARS = 300
_DENIED = f"raised PermissionError: [Errno {errno.EPERM}]"
_NO_MODULE = re.compile(r"raised ModuleNotFoundError: No module named '([\w.]+)'")
_RUN_CASE = """
import unittest
result = unittest.TestResult()
unittest.defaultTestLoader.loadTestsFromTestCase({name}).run(result)
assert result.wasSuccessful(), (result.failures + result.errors)[0][1].strip().splitlines()[-1]
"""
_RUN_METHODS = """
for name in [name for name in vars({name}) if name.startswith("test")]:
    one = {name}()
    getattr(one, "setup_method", list)()
    getattr(one, name)()
"""
"""How the methods of a test case, and of a plain test class, are run in the program's own process."""


class Trial:
    """The trial of one program: the first thing that goes wrong decides its status."""

    def __init__(self, zygotes: Zygotes, candidate: ForkedProcess, limits: Limits, program: ProgramFields) -> None:
        """Take a candidate's process that has been forked already, and a program that it has not seen yet."""
        self._zygotes = zygotes
        self._forks = [candidate]
        self._tester: Channel | None = None
        self._limits = limits
        self._began = time.monotonic()
        self._deadline = self._began + limits.wall_s
        self._pids: list[int] = []
        self._code, self._setup = program["code"].removeprefix(_BOM), program["setup"].removeprefix(_BOM)
        self._sources = (self._code, self._setup, *program["tests"])
        self._plan = plan_tests(
            program["code"], program["setup"], [test.removeprefix(_BOM) for test in program["tests"]]
        )
        self._results: list[bool | None] = [None] * len(self._plan.tests)
        self._counted = self._outside = 0  # asserts about the program, and those not decided in its process
        self._inside = False  # whether the tests that are not split run in the program's process
        self._status, self._detail = "passed", ""
        self._place = ""  # what is being run
        self.starved = False

    def run(self) -> Exception | None:
        """Run the code, the setup and all tests; return the exception that interrupted the trial, if any."""
        try:
            kind = kind_for(*self._sources)
            if kind != self._forks[0].kind:
                self._forks.pop().end()
                self._forks = [self._zygotes.fork(kind)]
            self._wait_for(self._candidate)  # it is confined, and has seen no code yet
            if self._prepare():
                self._run_tests()
        except (ChannelClosed, TimeoutError, TooLarge) as error:
            if isinstance(error, TimeoutError):
                self.starved = self._waited_for_a_core()
            return error
        return None

    @property
    def _candidate(self) -> Channel:
        return self._forks[0].channel

    def close(self, interruption: Exception | None) -> None:
        """End the processes, and let how they and the trial ended decide the status."""
        endings = [fork.end() for fork in self._forks]
        limits, ending = self._limits, endings[0]
        if endings[-1]["gone"] or endings[-1]["status"] != signal.SIGKILL:  # the tester was not ended by us
            ending = endings[-1]
        status = ending["status"]
        stopped = os.WIFSIGNALED(status) and (os.WTERMSIG(status) == signal.SIGXCPU or ending["cpu_s"] >= limits.cpu_s)
        if not self._place:
            self._fail("infrastructure", "the candidate's process did not start")
        elif isinstance(interruption, TimeoutError):
            self.starved &= ending["cpu_s"] < limits.cpu_s
            self._fail("timeout", f"{self._place} not finished after {limits.wall_s:g} s")
        elif isinstance(interruption, TooLarge):
            self._fail("failed", f"{self._place} was answered with more than {MAX_BYTES} bytes")
        elif interruption and stopped:
            self._fail("timeout", f"{self._place} used up {limits.cpu_s:g} s of CPU time")
        elif interruption or ending["gone"]:
            self._fail("crashed", f"{self._place} {_ending(status)}")
        elif ending["left_behind"]:
            self._fail("failed", f"{ending['left_behind']} processes were left running")
        elif self._status == "passed" and not self._counted:
            self._fail("untested", "no assert calls a name that the code defines" if self._results else "")
        elif self._status == "passed" and self._outside < self._counted:
            self._status = "passed-in-process"

    def outcome(self) -> OutcomeFields:
        """Return the fields of a `records.Outcome`."""
        return {
            "status": self._status,
            "results": self._results,
            "detail": _printable(self._detail),
            "isolation": f"{self._zygotes.level}; split {self._outside}/{self._counted}",
            "asserts": self._counted,
            "outside": self._outside,
        }

    def _wait_for(self, process: Channel) -> None:
        """Wait until a process is confined, and note its id."""
        pid = process.receive_first(self._deadline)
        if pid:
            self._pids.append(pid)

    def _waited_for_a_core(self) -> bool:
        """Whether the processes spent half of the time ready to run, on a machine that was too busy for them."""
        waits = [waiting_s(pid) for pid in self._pids]
        if not waits or None in waits:
            return True  # the system does not count it
        return sum(filter(None, waits)) > 0.5 * (time.monotonic() - self._began)

    def _prepare(self) -> bool:
        for name, source in (("code", self._code), ("setup", self._setup)):
            if name == "code" or source.strip():
                self._place = name
                passed, detail = self._execute(source)
                if not passed:
                    self._fail(*_refusal(name, detail))
                    return False
        return True

    def _run_tests(self) -> None:
        for index, planned in enumerate(self._plan.tests):
            line = planned.test.strip()
            self._place = f"test {index + 1}" if "\n" in line else f"test {index + 1}: {line[:120]}"
            self._results[index] = False  # until it has a result
            if planned.split:
                passed, detail = self._evaluate(planned.split)
                self._count(planned.counts, planned.counts)
            elif self._inside:
                passed, detail = self._run_inside(planned.test)
            else:
                passed, detail = self._run_outside(index, planned.test)
            self._results[index] = passed
            if not passed:
                self._fail(*_refusal(self._place, detail))

    def _count(self, counted: int, outside: int) -> None:
        self._counted, self._outside = self._counted + counted, self._outside + outside

    def _run_outside(self, index: int, test: str) -> CheckResult:
        """Have the tester run a test; one that it cannot run runs in the program's process, and so do all later."""
        if self._tester is None:
            self._tester = self._start_tester()
            begun = self._instruct(
                self._tester,
                {
                    "setup": self._setup,
                    "names": self._plan.names,
                    "modules": self._plan.modules,
                    "candidate": self._plan.candidate,
                },
            )
            if begun["detail"]:
                return CheckResult(False, begun["detail"])
            self._inside = bool(begun["inside"])
        if not self._inside:
            report = self._instruct(self._tester, {"test": test, "called": self._plan.called})
            if not report["inside"]:
                self._count(report["counted"], report["outside"])
                return CheckResult(report["passed"], report["detail"].removeprefix(f"{test.strip()} "))
            self._inside = True
        for earlier in self._plan.tests[:index]:  # their definitions are missing in the program's process
            if earlier.split is None:
                self._execute(earlier.test)
        return self._run_inside(test)

    def _run_inside(self, test: str) -> CheckResult:
        tree = assertions.parsed(test)
        entries = list(assertions.entry_points(tree)) if tree else []
        calls = [self._call_of(entry) for entry in entries if entry.name not in self._plan.called]
        self._count(bool(tree and assertions.asserts(tree)), 0)
        return self._execute("\n".join([test, *calls]))

    def _call_of(self, entry: assertions.FunctionNode | ast.ClassDef) -> str:
        if isinstance(entry, ast.ClassDef):
            return (_RUN_CASE if assertions.is_case(entry) else _RUN_METHODS).format(name=entry.name)
        return f"{entry.name}({self._plan.candidate if entry.name == assertions.CHECK_FUNCTION else ''})"

    def _start_tester(self) -> Channel:
        fork = self._zygotes.fork("tester")
        self._forks.append(fork)
        self._wait_for(fork.channel)
        return fork.channel

    def _instruct(self, tester: Channel, instruction: Mapping[str, object]) -> TestReport:
        """Have the tester run something; forward its questions to the program and the replies to it, unread."""
        tester.send(instruction, self._deadline)
        while True:
            message = json.loads(tester.receive(self._deadline))
            if "done" in message:
                report: TestReport = message["done"]
                return report
            self._candidate.send(message["ask"], self._deadline)
            tester.forward(self._candidate.receive(self._deadline, MAX_BYTES), self._deadline)

    def _execute(self, statements: str) -> CheckResult:
        return check_reply(*self._ask({"statements": statements}), True, operator.is_)

    def _evaluate(self, split: SplitAssert) -> CheckResult:
        return check_reply(*self._ask({"expression": split.expression}), split.expected, split.check)

    def _ask(self, question: dict[str, str]) -> tuple[bytes, str]:
        """Send a question to the program; return the reply, unread, and the id that it must have."""
        nonce = secrets.token_hex(16)
        self._candidate.send({"id": nonce, **question}, self._deadline)
        return self._candidate.receive(self._deadline, MAX_BYTES), nonce

    def _fail(self, status: str, detail: str) -> None:
        if self._status == "passed":
            self._status, self._detail = status, detail


def _refusal(place: str, detail: str) -> tuple[str, str]:
    """Return status and detail: what the sandbox denies or lacks is distinguished from a wrong answer."""
    if missing := _NO_MODULE.search(detail):
        return "missing-module", f"{place}: the sandbox offers no module {missing[1]}"
    return ("denied" if detail.startswith(_DENIED) else "failed"), f"{place} {detail}"


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"ended its process by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended its process with status {os.WEXITSTATUS(status)}"


def _printable(text: str) -> str:
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[:_DETAIL_CHARS]
    )
    return shown if len(shown) <= _DETAIL_CHARS else shown[: _DETAIL_CHARS - 1] + "…"
