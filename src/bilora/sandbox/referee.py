"""The process that judges: it alone knows the tests, and holds them apart from the code under test."""

from __future__ import annotations

import ast
import contextlib
import errno
import json
import operator
import os
import re
import secrets
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bilora.sandbox import assertions
from bilora.sandbox.comparison import Verdict, weigh
from bilora.sandbox.confinement import Layers, Limits, guard
from bilora.sandbox.planning import Step, plan
from bilora.sandbox.scheduling import waiting_s
from bilora.sandbox.spawning import spawn
from bilora.sandbox.splitting import Split
from bilora.sandbox.wire import MAX_BYTES, Channel, Closed, TooLarge
from bilora.sandbox.zygote import Kind, kind_for

_BOM = "\ufeff"
"""Python takes a byte order mark off a file's source, but not off a string's."""
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


def serve(launcher: Channel, limits: Limits) -> None:
    """Say how candidates are confined, then judge the programs that the launcher sends until it hangs up."""
    guard()
    zygotes = _Zygotes(limits)
    launcher.send(zygotes.layers)
    with contextlib.suppress(Closed):
        while True:
            ready = zygotes.fork("candidate")
            trial = _Trial(zygotes, ready, limits, json.loads(launcher.receive()))
            interruption = trial.run()
            trial.close(interruption)
            launcher.send({"outcome": trial.outcome(), "starved": trial.starved})


class _Zygotes:
    """The processes that are forked from, each started when it is first needed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._channels: dict[Kind, Channel] = {}
        self.layers = self._start("candidate")
        self.level = str(Layers(tuple(self.layers["on"]), self.layers["off"]))

    def fork(self, kind: Kind) -> _Fork:
        """Fork a process; it has to be ended before the next one of its kind.

        Raises:
            Closed: the zygote has ended, or is confined less well than the first one was.
        """
        if kind not in self._channels and self._start(kind) != self.layers:
            raise Closed
        zygote = self._channels[kind]
        ours, theirs = socket.socketpair()
        channel = Channel(ours)
        channel.pass_credentials()
        with theirs:
            zygote.hand_over(theirs.fileno())
        return _Fork(kind, zygote, channel)

    def _start(self, kind: Kind) -> dict[str, Any]:
        _, self._channels[kind] = spawn("zygote", self._limits, kind, session=False)
        layers: dict[str, Any] = json.loads(self._channels[kind].receive())
        return layers


@dataclass(frozen=True)
class _Fork:
    """One forked process, and its zygote's channel."""

    kind: Kind
    zygote: Channel
    channel: Channel

    def end(self) -> dict[str, Any]:
        """Kill the process and return how it ended."""
        self.zygote.send("end")
        ending: dict[str, Any] = json.loads(self.zygote.receive())
        self.channel.close()
        return ending


class _Trial:
    """One program's hearing: the first thing that goes wrong decides its status."""

    def __init__(self, zygotes: _Zygotes, ready: _Fork, limits: Limits, program: dict[str, Any]) -> None:
        self._zygotes = zygotes
        self._forks = [ready]
        self._tester: Channel | None = None
        self._limits = limits
        self._began = time.monotonic()
        self._deadline = self._began + limits.wall_s
        self._pids: list[int] = []
        self._program = program | {name: program[name].removeprefix(_BOM) for name in ("code", "setup")}
        self._plan = plan(program["code"], program["setup"], [test.removeprefix(_BOM) for test in program["tests"]])
        self._results: list[bool | None] = [None] * len(self._plan.steps)
        self._counted = self._outside = 0
        self._inside = False
        self._status, self._detail = "passed", ""
        self._at = ""
        self.starved = False

    def run(self) -> Exception | None:
        """Ask everything; return what cut the hearing short, if anything did."""
        try:
            kind = kind_for(self._program["code"], self._program["setup"], *self._program["tests"])
            if kind != self._forks[0].kind:
                self._forks.pop().end()
                self._forks = [self._zygotes.fork(kind)]
            self._meet(self._candidate)  # it is confined, and has seen no code yet
            if self._prepare():
                self._try_tests()
        except (Closed, TimeoutError, TooLarge) as error:
            if isinstance(error, TimeoutError):
                self.starved = self._waited_for_a_core()
            return error
        return None

    @property
    def _candidate(self) -> Channel:
        return self._forks[0].channel

    def close(self, interruption: Exception | None) -> None:
        """End the processes, and take account of how they and the hearing ended."""
        endings = [fork.end() for fork in self._forks]
        limits, ending = self._limits, endings[0]
        if endings[-1]["gone"] or endings[-1]["status"] != signal.SIGKILL:  # the test's process was not ended by us
            ending = endings[-1]
        status = ending["status"]
        stopped = os.WIFSIGNALED(status) and (os.WTERMSIG(status) == signal.SIGXCPU or ending["cpu_s"] >= limits.cpu_s)
        if not self._at:
            self._fail("infrastructure", "the candidate's process did not start")
        elif isinstance(interruption, TimeoutError):
            self.starved &= ending["cpu_s"] < limits.cpu_s
            self._fail("timeout", f"{self._at} not finished after {limits.wall_s:g} s")
        elif isinstance(interruption, TooLarge):
            self._fail("failed", f"{self._at} was answered with more than {MAX_BYTES} bytes")
        elif interruption and stopped:
            self._fail("timeout", f"{self._at} used up {limits.cpu_s:g} s of CPU time")
        elif interruption or ending["gone"]:
            self._fail("crashed", f"{self._at} {_ending(status)}")
        elif ending["left_behind"]:
            self._fail("failed", f"{ending['left_behind']} processes were left running")
        elif self._status == "passed" and not self._counted:
            self._fail("untested", "no assert calls a name that the code defines" if self._results else "")
        elif self._status == "passed" and self._outside < self._counted:
            self._status = "passed-in-process"

    def outcome(self) -> dict[str, Any]:
        """Fields of a `records.Outcome`."""
        return {
            "status": self._status,
            "results": self._results,
            "detail": _printable(self._detail),
            "isolation": f"{self._zygotes.level}; split {self._outside}/{self._counted}",
            "asserts": self._counted,
            "outside": self._outside,
        }

    def _meet(self, process: Channel) -> None:
        pid = process.receive_first(self._deadline)
        if pid:
            self._pids.append(pid)

    def _waited_for_a_core(self) -> bool:
        """Whether the processes spent half of their time ready to run, on a machine that was too busy for them."""
        waits = [waiting_s(pid) for pid in self._pids]
        if not waits or None in waits:
            return True  # the system does not count it
        return sum(filter(None, waits)) > 0.5 * (time.monotonic() - self._began)

    def _prepare(self) -> bool:
        for name in ("code", "setup"):
            text = self._program[name]
            if name == "code" or text.strip():
                self._at = name
                passed, detail = self._run(text)
                if not passed:
                    self._fail(*_refusal(name, detail))
                    return False
        return True

    def _try_tests(self) -> None:
        for index, step in enumerate(self._plan.steps):
            line = step.test.strip()
            self._at = f"test {index + 1}" if "\n" in line else f"test {index + 1}: {line[:120]}"
            self._results[index] = False  # until it has answered
            if step.part:
                passed, detail = self._evaluate(step.part)
                self._count(step.counts, step.counts)
            elif self._inside:
                passed, detail = self._run_inside(step)
            else:
                passed, detail = self._run_outside(index, step)
            self._results[index] = passed
            if not passed:
                self._fail(*_refusal(self._at, detail))

    def _count(self, counted: int, outside: int) -> None:
        self._counted, self._outside = self._counted + counted, self._outside + outside

    def _run_outside(self, index: int, step: Step) -> Verdict:
        """Let the tester run a test; one that it cannot run apart from the program runs inside, and says so."""
        if self._tester is None:
            self._tester = self._start_tester()
            begun = self._instruct(
                self._tester,
                {
                    "setup": self._program["setup"],
                    "names": self._plan.names,
                    "modules": self._plan.modules,
                    "candidate": self._plan.candidate,
                },
            )
            if begun["detail"]:
                return False, begun["detail"]
            self._inside = bool(begun["inside"])
        if not self._inside:
            report = self._instruct(self._tester, {"test": step.test, "called": self._plan.called})
            if not report["inside"]:
                self._count(report["counted"], report["outside"])
                return report["passed"], report["detail"].removeprefix(f"{step.test.strip()} ")
            self._inside = True
        for earlier in self._plan.steps[:index]:
            if earlier.part is None:
                self._run(earlier.test)
        return self._run_inside(step)

    def _run_inside(self, step: Step) -> Verdict:
        tree = assertions.parsed(step.test)
        entries = list(assertions.entry_points(tree)) if tree else []
        calls = [self._call_of(entry) for entry in entries if entry.name not in self._plan.called]
        self._count(bool(tree and assertions.asserts(tree)), 0)
        return self._run("\n".join([step.test, *calls]))

    def _call_of(self, entry: assertions.Function | ast.ClassDef) -> str:
        if isinstance(entry, ast.ClassDef):
            return (_RUN_CASE if assertions.is_case(entry) else _RUN_METHODS).format(name=entry.name)
        return f"{entry.name}({self._plan.candidate if entry.name == assertions.CHECK else ''})"

    def _start_tester(self) -> Channel:
        fork = self._zygotes.fork("tester")
        self._forks.append(fork)
        self._meet(fork.channel)
        return fork.channel

    def _instruct(self, tester: Channel, instruction: dict[str, Any]) -> dict[str, Any]:
        """Have the tester do something, and carry its questions to the program and the replies back, unread."""
        tester.send(instruction, self._deadline)
        while True:
            message: dict[str, Any] = json.loads(tester.receive(self._deadline))
            if "done" in message:
                done: dict[str, Any] = message["done"]
                return done
            self._candidate.send(message["ask"], self._deadline)
            tester.forward(self._candidate.receive(self._deadline, MAX_BYTES), self._deadline)

    def _run(self, statements: str) -> Verdict:
        return self._ask({"statements": statements}, True, operator.is_)

    def _evaluate(self, part: Split) -> Verdict:
        return self._ask({"expression": part.expression}, part.expected, part.check)

    def _ask(self, question: dict[str, str], expected: Any, check: Callable[[Any, Any], bool]) -> Verdict:
        nonce = secrets.token_hex(16)
        self._candidate.send({"id": nonce, **question}, self._deadline)
        return weigh(self._candidate.receive(self._deadline, MAX_BYTES), nonce, expected, check)

    def _fail(self, status: str, detail: str) -> None:
        if self._status == "passed":
            self._status, self._detail = status, detail


def _refusal(place: str, detail: str) -> tuple[str, str]:
    """Return status and detail: what the sandbox denies or lacks is distinguished from what is wrong."""
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
