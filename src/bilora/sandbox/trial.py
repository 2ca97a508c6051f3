"""The trial of one program: run its code and setup, then decide each test."""

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
from bilora.sandbox.scheduling import run_queue_wait_s
from bilora.sandbox.wire import MAX_BYTES, Channel, ChannelClosed, TooLarge
from bilora.sandbox.zygote import kind_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bilora.sandbox.confinement import Limits
    from bilora.sandbox.forks import ForkedProcess, Zygotes
    from bilora.sandbox.messages import OutcomeFields, ProgramFields, TestReport
    from bilora.sandbox.splitting import SplitAssert

_BOM = "\ufeff"
"""Byte order mark. Python removes it from a source file, but not from a string."""
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
    instance = {name}()
    getattr(instance, "setup_method", list)()
    getattr(instance, name)()
"""
"""Code that runs the methods of a unittest test case, or of a pytest class, in the program's process."""


class Trial:
    """The trial of one program, whose status the first failure decides."""

    def __init__(self, zygotes: Zygotes, candidate: ForkedProcess, limits: Limits, program: ProgramFields) -> None:
        """Take a candidate's process that has been forked, and a program that it has not received yet."""
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
        self._counted = self._outside = 0  # asserts about the program, and those decided outside its process
        self._in_program = False  # whether the tests that are not split run in the program's process
        self._status, self._detail = "passed", ""
        self._step = ""  # the part that is running: code, setup or a test
        self.starved = False

    def run(self) -> Exception | None:
        """Run the code, the setup and all tests; return the exception that interrupted them, if any."""
        try:
            kind = kind_for(*self._sources)
            if kind != self._forks[0].kind:
                self._forks.pop().kill()
                self._forks = [self._zygotes.fork(kind)]
            self._wait_for(self._candidate)  # before it receives any code
            if self._prepare():
                self._run_tests()
        except (ChannelClosed, TimeoutError, TooLarge) as error:
            if isinstance(error, TimeoutError):
                self.starved = self._waited_for_cpu()
            return error
        return None

    @property
    def _candidate(self) -> Channel:
        return self._forks[0].channel

    def close(self, interruption: Exception | None) -> None:
        """Kill the processes, and set the status by how they and the trial ended."""
        reports = [fork.kill() for fork in self._forks]
        limits, report = self._limits, reports[0]
        if reports[-1]["by_itself"] or reports[-1]["status"] != signal.SIGKILL:  # the tester exited before
            report = reports[-1]
        status = report["status"]
        killed = os.WIFSIGNALED(status)
        out_of_cpu = killed and (os.WTERMSIG(status) == signal.SIGXCPU or report["cpu_s"] >= limits.cpu_s)
        if not self._step:
            self._fail("infrastructure", "the candidate's process did not start")
        elif isinstance(interruption, TimeoutError):
            self.starved &= report["cpu_s"] < limits.cpu_s
            self._fail("timeout", f"{self._step} not finished after {limits.wall_s:g} s")
        elif isinstance(interruption, TooLarge):
            self._fail("failed", f"{self._step} was answered with more than {MAX_BYTES} bytes")
        elif interruption and out_of_cpu:
            self._fail("timeout", f"{self._step} used up {limits.cpu_s:g} s of CPU time")
        elif interruption or report["by_itself"]:
            self._fail("crashed", f"{self._step} {_describe_exit(status)}")
        elif report["left_behind"]:
            self._fail("failed", f"{report['left_behind']} processes were left running")
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
        """Wait until a process is confined, and record its pid."""
        pid = process.receive_with_pid(self._deadline)
        if pid:
            self._pids.append(pid)

    def _waited_for_cpu(self) -> bool:
        """Return whether the processes waited for a core for more than half of the elapsed time."""
        waits = [run_queue_wait_s(pid) for pid in self._pids]
        if not waits or None in waits:
            return True  # the system does not measure it
        return sum(filter(None, waits)) > 0.5 * (time.monotonic() - self._began)

    def _prepare(self) -> bool:
        for name, source in (("code", self._code), ("setup", self._setup)):
            if name == "code" or source.strip():
                self._step = name
                passed, detail = self._execute(source)
                if not passed:
                    self._fail(*_classify_failure(name, detail))
                    return False
        return True

    def _run_tests(self) -> None:
        for index, planned in enumerate(self._plan.tests):
            line = planned.test.strip()
            self._step = f"test {index + 1}" if "\n" in line else f"test {index + 1}: {line[:120]}"
            self._results[index] = False  # until it has a result
            if planned.split:
                passed, detail = self._evaluate(planned.split)
                self._count(planned.counts, planned.counts)
            elif self._in_program:
                passed, detail = self._run_in_program(planned.test)
            else:
                passed, detail = self._run_separately(index, planned.test)
            self._results[index] = passed
            if not passed:
                self._fail(*_classify_failure(self._step, detail))

    def _count(self, counted: int, outside: int) -> None:
        self._counted, self._outside = self._counted + counted, self._outside + outside

    def _run_separately(self, index: int, test: str) -> CheckResult:
        """Run a test in the tester; if that is impossible, run it and all later tests in the program's process."""
        if self._tester is None:
            self._tester = self._start_tester()
            setup_report = self._run_in_tester(
                self._tester,
                {
                    "setup": self._setup,
                    "names": self._plan.names,
                    "modules": self._plan.modules,
                    "candidate": self._plan.candidate,
                },
            )
            if setup_report["detail"]:
                return CheckResult(False, setup_report["detail"])
            self._in_program = bool(setup_report["inside"])
        if not self._in_program:
            report = self._run_in_tester(self._tester, {"test": test, "called": self._plan.called})
            if not report["inside"]:
                self._count(report["counted"], report["outside"])
                return CheckResult(report["passed"], report["detail"].removeprefix(f"{test.strip()} "))
            self._in_program = True
        for earlier in self._plan.tests[:index]:  # the program's process lacks their definitions
            if earlier.split is None:
                self._execute(earlier.test)
        return self._run_in_program(test)

    def _run_in_program(self, test: str) -> CheckResult:
        tree = assertions.parse_or_none(test)
        entries = list(assertions.entry_points(tree)) if tree else []
        calls = [self._call_of(entry) for entry in entries if entry.name not in self._plan.called]
        self._count(bool(tree and assertions.contains_assert(tree)), 0)
        return self._execute("\n".join([test, *calls]))

    def _call_of(self, entry: assertions.FunctionNode | ast.ClassDef) -> str:
        if isinstance(entry, ast.ClassDef):
            return (_RUN_CASE if assertions.is_test_case(entry) else _RUN_METHODS).format(name=entry.name)
        return f"{entry.name}({self._plan.candidate if entry.name == assertions.CHECK_FUNCTION else ''})"

    def _start_tester(self) -> Channel:
        fork = self._zygotes.fork("tester")
        self._forks.append(fork)
        self._wait_for(fork.channel)
        return fork.channel

    def _run_in_tester(self, tester: Channel, instruction: Mapping[str, object]) -> TestReport:
        """Send the tester an instruction, and forward its requests and the program's replies, without parsing those."""
        tester.send(instruction, self._deadline)
        while True:
            message = json.loads(tester.receive(self._deadline))
            if "done" in message:
                report: TestReport = message["done"]
                return report
            self._candidate.send(message["request"], self._deadline)
            tester.forward(self._candidate.receive(self._deadline, MAX_BYTES), self._deadline)

    def _execute(self, statements: str) -> CheckResult:
        return check_reply(*self._request({"statements": statements}), True, operator.is_)

    def _evaluate(self, split: SplitAssert) -> CheckResult:
        return check_reply(*self._request({"expression": split.expression}), split.expected, split.check)

    def _request(self, request: dict[str, str]) -> tuple[bytes, str]:
        """Send the program a request; return the unparsed reply and the id that it must have."""
        nonce = secrets.token_hex(16)
        self._candidate.send({"id": nonce, **request}, self._deadline)
        return self._candidate.receive(self._deadline, MAX_BYTES), nonce

    def _fail(self, status: str, detail: str) -> None:
        if self._status == "passed":
            self._status, self._detail = status, detail


def _classify_failure(step: str, detail: str) -> tuple[str, str]:
    """Return status and detail of a failure: a denied call, a missing module or a wrong answer."""
    if missing := _NO_MODULE.search(detail):
        return "missing-module", f"{step}: the sandbox has no module {missing[1]}"
    return ("denied" if detail.startswith(_DENIED) else "failed"), f"{step} {detail}"


def _describe_exit(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"ended its process by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended its process with status {os.WEXITSTATUS(status)}"


def _printable(text: str) -> str:
    printable = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[:_DETAIL_CHARS]
    )
    return printable if len(printable) <= _DETAIL_CHARS else printable[: _DETAIL_CHARS - 1] + "…"
