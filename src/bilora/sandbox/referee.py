"""The process that judges: it alone knows the tests, and holds them apart from the code under test."""

from __future__ import annotations

import contextlib
import errno
import json
import operator
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from bilora.sandbox.comparison import Verdict, weigh
from bilora.sandbox.confinement import Layers, Limits, guard
from bilora.sandbox.spawning import spawn
from bilora.sandbox.splitting import Split, split
from bilora.sandbox.wire import MAX_BYTES, Channel, Closed, TooLarge

_DETAIL_CHARS = 300
_DENIED = f"raised PermissionError: [Errno {errno.EPERM}]"


def serve(launcher: Channel, limits: Limits) -> None:
    """Say how candidates are confined, then judge the programs that the launcher sends until it hangs up."""
    guard()
    _, zygote = spawn("zygote", limits, session=False)
    layers = json.loads(zygote.receive())
    launcher.send(layers)
    level = str(Layers(tuple(layers["on"]), layers["off"]))
    with contextlib.suppress(Closed):
        while True:
            candidate = _bear(zygote)
            program = json.loads(launcher.receive())
            trial = _Trial(candidate, limits, program, level)
            interruption = trial.run()
            zygote.send("end")
            trial.close(interruption, json.loads(zygote.receive()))
            candidate.close()
            launcher.send({"outcome": trial.outcome(), "starved": trial.starved})


def _bear(zygote: Channel) -> Channel:
    ours, theirs = socket.socketpair()
    with theirs:
        zygote.hand_over(theirs.fileno())
    return Channel(ours)


class _Trial:
    """One program's hearing: the first thing that goes wrong decides its status."""

    def __init__(self, candidate: Channel, limits: Limits, program: dict[str, Any], level: str) -> None:
        self._candidate = candidate
        self._limits = limits
        self._deadline = time.monotonic() + limits.wall_s
        self._program = program
        self._splits = [split(test) for test in program["tests"]]
        self._results: list[bool | None] = [None] * len(self._splits)
        self._level = level
        self._status, self._detail = "passed", ""
        self._at = ""
        self.starved = False

    def run(self) -> Exception | None:
        """Ask everything; return what cut the hearing short, if anything did."""
        try:
            self._candidate.receive(self._deadline, MAX_BYTES)  # it is confined, and has seen no code yet
            if self._prepare():
                self._try_tests()
        except (Closed, TimeoutError, TooLarge) as error:
            return error
        return None

    def close(self, interruption: Exception | None, ending: dict[str, Any]) -> None:
        """Take account of how the hearing and the candidate's process ended."""
        status, limits = ending["status"], self._limits
        stopped = os.WIFSIGNALED(status) and (os.WTERMSIG(status) == signal.SIGXCPU or ending["cpu_s"] >= limits.cpu_s)
        if not self._at:
            self._fail("infrastructure", "the candidate's process did not start")
        elif isinstance(interruption, TimeoutError):
            self.starved = ending["cpu_s"] < limits.cpu_s
            self._fail("timeout", f"{self._at} not finished after {limits.wall_s:g} s")
        elif isinstance(interruption, TooLarge):
            self._fail("failed", f"{self._at} was answered with more than {MAX_BYTES} bytes")
        elif interruption and stopped:
            self._fail("timeout", f"{self._at} used up {limits.cpu_s:g} s of CPU time")
        elif interruption or ending["gone"]:
            self._fail("crashed", f"{self._at} {_ending(status)}")
        elif ending["left_behind"]:
            self._fail("failed", f"{ending['left_behind']} processes were left running")

    def outcome(self) -> dict[str, Any]:
        """Fields of a `records.Outcome`."""
        cut = sum(part is not None for part in self._splits)
        return {
            "status": self._status,
            "results": self._results,
            "detail": _printable(self._detail),
            "isolation": f"{self._level}; split {cut}/{len(self._splits)}",
        }

    def _prepare(self) -> bool:
        for name in ("code", "setup"):
            text = self._program[name]
            if name == "code" or text.strip():
                self._at = name
                passed, detail = self._run(text)
                if not passed:
                    self._fail(_refusal(detail), f"{name} {detail}")
                    return False
        return True

    def _try_tests(self) -> None:
        for index, (test, part) in enumerate(zip(self._program["tests"], self._splits, strict=True)):
            self._at = f"test {index + 1}: {' '.join(test.split())[:120]}"
            self._results[index] = False  # until it has answered
            passed, detail = self._run(test) if part is None else self._evaluate(part)
            self._results[index] = passed
            if not passed:
                self._fail(_refusal(detail), f"{self._at} {detail}")

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


def _refusal(detail: str) -> str:
    """Tell a program that asked for what the sandbox denies from one that is merely wrong; neither passes."""
    return "denied" if detail.startswith(_DENIED) else "failed"


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"ended its process by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended its process with status {os.WEXITSTATUS(status)}"


def _printable(text: str) -> str:
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[:_DETAIL_CHARS]
    )
    return shown if len(shown) <= _DETAIL_CHARS else shown[: _DETAIL_CHARS - 1] + "…"
