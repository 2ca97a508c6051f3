"""The sandbox's entry point: it runs programs and yields their outcomes in order."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from bilora.errors import BadData, WeakSandbox
from bilora.protocols import Progress, no_progress
from bilora.records import Outcome, Program
from bilora.sandbox.confinement import Layers, Limits
from bilora.sandbox.spawning import spawn
from bilora.sandbox.test_file import parse_tests
from bilora.sandbox.wire import Channel, ChannelClosed

if TYPE_CHECKING:
    from bilora.sandbox.messages import LayerReport, TrialReport

_GRACE_S = 15.0
"""Time that the referee and the zygotes may take in addition to a program's limits."""

LIMIT_RANGES = {"cpu_s": (0.01, 86_400.0), "wall_s": (0.01, 2 * 86_400.0 + 1), "memory_mb": (1, 2**20)}
"""Minimum and maximum of each limit."""
_PENDING_PER_WORKER = 16
"""Programs submitted ahead of the next outcome, per worker."""


class ProcessSandbox:
    """Runs every program in a separate process that the kernel confines and another process judges.

    Implements `protocols.Sandbox`. At most `workers` programs run at once. `cpu_s` limits a program's
    CPU time and `wall_s` its elapsed time, in seconds; `memory_mb` limits its address space.
    A program that reached `wall_s` because it waited for a core runs again, alone.

    The program's process does not receive the expected value of an assert that is decided outside it.
    `Outcome.isolation` names the active layers and counts these asserts. If the kernel cannot filter
    system calls, the level is `weak`: `allow_weak` has to permit it, and the gate promotes no adapter.
    """

    def __init__(
        self,
        workers: int = 1,
        cpu_s: float = 10,
        wall_s: float = 20,
        memory_mb: int = 1024,
        *,
        allow_weak: bool = False,
    ) -> None:
        limits = _checked_limits(Limits(cpu_s=cpu_s, wall_s=wall_s, memory_mb=memory_mb))
        self._worker_count = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="sandbox")
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._workers = [_Worker(limits, allow_weak) for _ in range(workers)]
        for worker in self._workers:
            self._idle.put(worker)
        self._exclusive = threading.Lock()

    def run(self, program: Program | str, tests: str | Iterable[str] = (), *, setup: str = "") -> Outcome:
        """Return the outcome of one program, run in the caller's thread; `infrastructure` after `close`.

        Args:
            program: source of the program, or a `Program`, which contains its tests and setup.
            tests: Python statements that assert something about the program's names, as one string or one by one.
            setup: source run between program and tests.

        Raises:
            BadData: `tests` is not Python, or one of its tests asserts nothing.
        """
        if isinstance(program, str):
            if isinstance(tests, str):
                tests = parse_tests(tests, "tests") if tests.strip() else ()
            program = Program(code=program, setup=setup, tests=tuple(tests))
        return self._run(program)

    def run_many(self, programs: Iterable[Program], *, progress: Progress = no_progress) -> Iterator[Outcome]:
        """Yield one outcome per program, in order; `programs` is consumed only as needed."""
        pending: deque[Future[Outcome]] = deque()
        try:
            for program in programs:
                pending.append(self._pool.submit(self._run, program))
                if len(pending) == self._worker_count * _PENDING_PER_WORKER:
                    yield pending.popleft().result()
                    progress(1)
            while pending:
                yield pending.popleft().result()
                progress(1)
        finally:
            for future in pending:
                future.cancel()

    def close(self) -> None:
        """Stop all workers, including those that another thread uses."""
        self._pool.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.closed = True
            worker.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def layers(self) -> Layers:
        """Return the layers that work on this machine and why others do not; start a worker if none runs."""
        worker = self._idle.get()
        try:
            return worker.layers()
        finally:
            self._idle.put(worker)

    def _run(self, program: Program) -> Outcome:
        worker = self._idle.get()
        try:
            outcome, starved = worker.run(program), worker.starved
        finally:
            self._idle.put(worker)
        if starved:
            with self._exclusive:
                workers = [self._idle.get() for _ in range(self._worker_count)]
                try:
                    return workers[0].run(program)
                finally:
                    for worker in workers:
                        self._idle.put(worker)
        return outcome


def _checked_limits(limits: Limits) -> Limits:
    """Refuse limits that the kernel cannot set; else their failure would look like missing confinement."""
    for field, (least, most) in LIMIT_RANGES.items():
        value = getattr(limits, field)
        if not least <= value <= most:  # also false for NaN
            raise BadData("sandbox", f"{field} is {value}; it can be from {least} to {most}.")
    return limits


class _Worker:
    """One referee with its zygotes, started on first use and restarted when one of them has died."""

    def __init__(self, limits: Limits, allow_weak: bool) -> None:
        self._limits = limits
        self._allow_weak = allow_weak
        self._layers = Layers(())
        self.closed = False
        """Whether no process may be started any more."""
        self.starved = False
        """Whether the last program reached `wall_s` because it waited for a core."""
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None

    def run(self, program: Program) -> Outcome:
        fault = ""
        for _ in range(2):
            try:
                outcome = self._try(program)
            except (ChannelClosed, TimeoutError, OSError) as error:
                fault = f"the sandbox's referee failed twice ({type(error).__name__})"
                if self.closed:  # another thread closed the sandbox and stops this worker
                    break
                self.stop()
                continue
            if outcome.status != "infrastructure":
                return outcome
            fault = outcome.detail
        return Outcome(status="infrastructure", results=(None,) * len(program.tests), detail=fault)

    def stop(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=1)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def layers(self) -> Layers:
        if self._channel is None:
            self._start()
        return self._layers

    def _try(self, program: Program) -> Outcome:
        channel = self._channel or self._start()
        deadline = time.monotonic() + self._limits.wall_s + _GRACE_S
        channel.send(program.model_dump(mode="json"), deadline)
        report: TrialReport = json.loads(channel.receive(deadline))
        self.starved = report["starved"]
        return Outcome.model_validate(report["outcome"])

    def _start(self) -> Channel:
        self._process, channel = spawn("referee", self._limits, session=True)
        self._channel = channel
        layers: LayerReport = json.loads(channel.receive(time.monotonic() + _GRACE_S))
        self._layers = Layers(tuple(layers["on"]), layers["off"])
        if self._layers.level == "weak" and not self._allow_weak:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self._layers.off.items())
            raise WeakSandbox(
                f"This machine cannot confine model-written code strictly ({reasons}), so no program was run. "
                "Use Linux, or set `sandbox: {allow_weak: true}` in params.yaml: programs then run, but no adapter "
                "is promoted."
            )
        return channel
