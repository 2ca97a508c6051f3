"""An engine uses one thread per free core, so that it does not spin beside other programs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from support.sample_adapters import SMOKE, chat_request

from bilora.inference import free_cores
from bilora.inference.free_cores import FreeCores
from bilora.inference.torch.batch import TorchBatch
from bilora.inference.torch.engine import TorchEngine
from bilora.inference.torch.loading import tune_for_inference

CORES = len(os.sched_getaffinity(0))


class Machine:
    """A machine whose /proc/stat, wall clock and CPU time are set by a test."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._stat = folder / "stat"
        self._wall = self._own = 0.0
        self._ticks = {core: [0] * 10 for core in range(4)}
        monkeypatch.setattr(free_cores, "PROC_STAT", self._stat)
        monkeypatch.setattr(time, "monotonic", lambda: self._wall)
        monkeypatch.setattr(time, "process_time", lambda: self._own)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
        self._write()

    def pass_time(self, seconds: float, *, process: float, idle: float, counted: bool = True) -> None:
        """Let time pass: this process used `process` of the two cores, and `idle` cores were idle."""
        self._wall += seconds
        self._own += process * seconds
        if counted:
            for core in (0, 1):
                self._ticks[core][0] += round(100 * seconds * (1 - idle / 2))
                self._ticks[core][3] += round(100 * seconds * idle / 2)
            self._ticks[3][3] += round(100 * seconds)  # a core that this process may not use
        self._write()

    def _write(self) -> None:
        lines = [f"cpu{core} {' '.join(map(str, ticks))}" for core, ticks in self._ticks.items()]
        self._stat.write_text("\n".join(["cpu  0 0 0 0 0 0 0 0 0 0", *lines, "intr 1 2", ""]), encoding="utf-8")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_alone_it_has_all_cores(machine: Machine) -> None:
    cores = FreeCores(2)
    assert cores.count() == 2
    for process, idle in ((0.0, 2.0), (2.0, 0.0), (1.6, 0.4)):
        machine.pass_time(1.0, process=process, idle=idle)
        assert cores.count() == 2


def test_beside_a_busy_program_it_leaves_that_its_core_and_takes_it_back(machine: Machine) -> None:
    cores = FreeCores(2)
    machine.pass_time(1.0, process=1.33, idle=0.0)  # two threads that share two cores with a third
    assert cores.count() == 1
    machine.pass_time(1.0, process=1.0, idle=0.0)
    assert cores.count() == 1
    machine.pass_time(1.0, process=1.0, idle=1.0)
    assert cores.count() == 2


def test_it_has_one_thread_where_nothing_is_free_and_never_more_than_it_may(machine: Machine) -> None:
    cores = FreeCores(1)
    machine.pass_time(1.0, process=0.2, idle=0.0)
    assert cores.count() == 1
    machine.pass_time(1.0, process=0.0, idle=2.0)
    assert cores.count() == 1


def test_it_counts_again_only_after_a_while(machine: Machine) -> None:
    cores = FreeCores(2)
    machine.pass_time(0.1, process=1.0, idle=0.0)
    assert cores.count() == 2


def test_a_pause_does_not_count(machine: Machine) -> None:
    cores = FreeCores(2)
    machine.pass_time(30.0, process=0.0, idle=0.0)
    assert cores.count() == 2
    machine.pass_time(1.0, process=1.0, idle=0.0)
    assert cores.count() == 1


def test_where_the_kernel_does_not_count_it_has_all_cores(machine: Machine) -> None:
    cores = FreeCores(2)
    machine.pass_time(1.0, process=1.0, idle=0.0, counted=False)
    assert cores.count() == 2
    free_cores.PROC_STAT.unlink()
    assert FreeCores(2).count() == 2


def test_it_counts_a_real_machine() -> None:
    cores = FreeCores(CORES)
    time.sleep(0.6)
    assert 1 <= cores.count() <= CORES


def test_the_engine_uses_the_number_of_threads_of_its_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TorchEngine(tune_for_inference(SMOKE.load(training=False)), {}, batch_size=2)
    thread_counts, threads = iter([1, 2, 2, 1] + [1] * 100), []
    step = TorchBatch.step

    def counted(batch: TorchBatch) -> None:
        threads.append(torch.get_num_threads())
        step(batch)

    monkeypatch.setattr(TorchBatch, "step", counted)
    engine.set_thread_callback(lambda: next(thread_counts))
    engine.generate("base", [chat_request("write a function", 5)])
    assert threads[:4] == [1, 2, 2, 1]
