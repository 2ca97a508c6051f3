"""The sandbox's public interface."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import descendants

from bilora.errors import WeakSandbox
from bilora.records import Outcome, Program
from bilora.sandbox import ProcessSandbox, launcher, spawning
from bilora.sandbox.confinement import Layers

ADD = "def add(a, b):\n    return a + b\n"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ProcessSandbox]:
    with ProcessSandbox(workers=2, cpu_s=1, wall_s=3, memory_mb=256) as running:
        yield running


def test_a_right_answer_passes_with_the_layers_named(sandbox: ProcessSandbox) -> None:
    outcome = sandbox.run(Program(code=ADD, tests=("assert add(1, 2) == 3", "assert add('a', 'b') == 'ab'")))
    assert (outcome.status, outcome.results, outcome.detail) == ("passed", (True, True), "")
    assert outcome.isolation == f"{sandbox.layers()}; split 2/2"


def test_a_byte_order_mark_is_read_as_python_reads_it(sandbox: ProcessSandbox) -> None:
    tests = ("\ufeffassert add(1, 2) == 3", "\ufeffassert add(1, 2) > 2")
    assert sandbox.run(Program(code=f"\ufeff{ADD}", setup="\ufeffimport math", tests=tests)).status == "passed"


def test_a_wrong_answer_fails_and_the_others_are_still_tried(sandbox: ProcessSandbox) -> None:
    tests = ("assert add(1, 2) == 3", "assert add(1, 2) == 4", "assert add(2, 2) == 4")
    outcome = sandbox.run(Program(code=ADD, tests=tests))
    assert (outcome.status, outcome.results) == ("failed", (True, False, True))
    assert outcome.detail == "test 2: assert add(1, 2) == 4 gave 3, not 4"


def test_an_exception_is_named(sandbox: ProcessSandbox) -> None:
    outcome = sandbox.run(Program(code=ADD, tests=("assert add(1, 'x') == 3",)))
    assert outcome.status == "failed"
    assert "raised TypeError: unsupported operand" in outcome.detail


def test_a_detail_is_one_short_printable_line(sandbox: ProcessSandbox) -> None:
    code = "def f():\n    raise ValueError('\\x1b[31m\\n\\ud800' * 500)"
    detail = sandbox.run(Program(code=code, tests=("assert f() == 1",))).detail
    assert len(detail) <= 300
    assert detail.isprintable()


def test_code_runs_before_setup_and_setup_before_tests(sandbox: ProcessSandbox) -> None:
    program = Program(
        code="trail = ['code']", setup="trail.append('setup')", tests=("assert trail == ['code', 'setup']",)
    )
    assert sandbox.run(program).status == "passed"


def test_code_that_fails_leaves_every_test_unreached(sandbox: ProcessSandbox) -> None:
    outcome = sandbox.run(Program(code="def (", tests=("assert 1 == 1", "assert 2 == 2")))
    assert (outcome.status, outcome.results) == ("failed", (None, None))
    assert outcome.detail.startswith("code raised SyntaxError")


@pytest.mark.parametrize(("code", "status"), [("x = 1", "untested"), ("x = y", "failed")])
def test_without_tests_nothing_passes(sandbox: ProcessSandbox, code: str, status: str) -> None:
    assert sandbox.run(Program(code=code)).status == status


def test_a_test_of_another_form_is_decided_outside_too(sandbox: ProcessSandbox) -> None:
    outcome = sandbox.run(Program(code=ADD, tests=("assert add(1, 2) > 2", "assert add(1, 1) == 2")))
    assert outcome.status == "passed"
    assert outcome.isolation.endswith("split 2/2")


def test_a_false_assert_of_another_form_fails(sandbox: ProcessSandbox) -> None:
    outcome = sandbox.run(Program(code=ADD, tests=("assert add(1, 2) > 5",)))
    assert (outcome.status, outcome.results) == ("failed", (False,))


def test_too_much_cpu_time_is_a_timeout_and_later_tests_are_unreached(sandbox: ProcessSandbox) -> None:
    code = "def f():\n    while True:\n        pass"
    outcome = sandbox.run(Program(code=code, tests=("assert f() == 1", "assert 1 == 1")))
    assert (outcome.status, outcome.results) == ("timeout", (False, None))
    assert "1 s of CPU time" in outcome.detail


def test_the_first_thing_that_goes_wrong_is_what_is_reported(sandbox: ProcessSandbox) -> None:
    code = "import os\ndef f(n):\n    return n or os._exit(3)"
    outcome = sandbox.run(Program(code=code, tests=("assert f(1) == 2", "assert f(0) == 0")))
    assert (outcome.status, outcome.results) == ("failed", (False, False))
    assert outcome.detail.startswith("test 1: ")


def test_sleeping_is_a_timeout(sandbox: ProcessSandbox) -> None:
    outcome = sandbox.run(Program(code="import time\ntime.sleep(10**6)"))
    assert outcome.status == "timeout"
    assert "not finished after 3 s" in outcome.detail


def test_memory_is_limited(sandbox: ProcessSandbox) -> None:
    outcome = sandbox.run(Program(code="x = bytearray(300 * 2**20)"))
    assert outcome.detail == "code raised MemoryError"


def test_a_denied_call_is_distinguished_from_a_wrong_answer(sandbox: ProcessSandbox) -> None:
    outcome = sandbox.run(Program(code="def f():\n    open('/etc/passwd')", tests=("assert f() == 1",)))
    assert outcome.status == "denied" and "Operation not permitted" in outcome.detail


def test_no_secret_of_the_parent_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    code = "import os\ndef f():\n    return sorted(os.environ)"
    with ProcessSandbox(workers=1) as fresh:
        outcome = fresh.run(Program(code=code, tests=("assert f() == ['LANG', 'PYTHONHASHSEED']",)))
    assert outcome.status == "passed", outcome.detail


def test_no_descriptor_of_the_parent_is_open(sandbox: ProcessSandbox, tmp_path: Path) -> None:
    code = """
import os
def f():
    found = []
    for number in range(4, 64):
        try:
            os.read(number, 1)
        except OSError:
            continue
        found.append(number)
    return found
"""
    with (tmp_path / "secret").open("w+") as file:
        os.set_inheritable(file.fileno(), True)
        with ProcessSandbox(workers=1) as fresh:
            outcome = fresh.run(Program(code=code, tests=("assert f() == []",)))
    assert outcome.status == "passed", outcome.detail


def test_sets_are_ordered_alike_on_every_run() -> None:
    code = "def f():\n    return list({'ash', 'birch', 'cedar', 'fir', 'oak', 'pine'})"
    details = set()
    for _ in range(2):
        with ProcessSandbox(workers=1) as fresh:
            details.add(fresh.run(Program(code=code, tests=("assert f() == []",))).detail)
    assert len(details) == 1


def test_random_starts_alike_in_every_program() -> None:
    draw = Program(code="import random\ndef draw(): return random.random()", tests=("assert draw() == 0",))
    seen = set()
    for _ in range(2):
        with ProcessSandbox(workers=1) as fresh:
            seen |= {outcome.detail for outcome in fresh.run_many([draw] * 2)}
    assert len(seen) == 1 and "gave 0.8" in seen.pop()


def test_outcomes_come_in_the_order_of_the_programs(sandbox: ProcessSandbox) -> None:
    programs = [
        Program(code=f"import time\ntime.sleep({n % 4 * 0.01})", tests=(f"assert {n} == -1",)) for n in range(40)
    ]
    details = [outcome.detail for outcome in sandbox.run_many(programs)]
    assert details == [f"test 1: assert {n} == -1 gave {n}, not -1" for n in range(40)]


def test_programs_are_taken_only_as_needed(sandbox: ProcessSandbox) -> None:
    endless = (Program(code=f"x = {n}") for n in itertools.count())
    outcomes = sandbox.run_many(endless)
    assert next(outcomes).status == "untested"
    outcomes.close()  # type: ignore[attr-defined]
    assert int(next(endless).code.removeprefix("x = ")) < 100


def test_progress_counts_every_program(sandbox: ProcessSandbox) -> None:
    counted: list[int] = []
    list(sandbox.run_many([Program(code="x = 1")] * 5, progress=counted.append))
    assert sum(counted) == 5


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes through /proc")
def test_a_dead_zygote_is_started_again() -> None:
    with ProcessSandbox(workers=1) as fresh:
        fresh.run(Program(code="x = 1"))
        killed = descendants(os.getpid())[-2:]  # the referee and the zygote; the namespace's processes exit with it
        assert len(killed) == 2
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        assert fresh.run(Program(code=ADD, tests=("assert add(1, 2) == 3",))).status == "passed"


def test_a_sandbox_that_cannot_start_is_infrastructure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawning, "_SCRIPT", "no such file")
    with ProcessSandbox(workers=1) as fresh:
        outcome = fresh.run(Program(code=ADD, tests=("assert add(1, 2) == 3",)))
    assert (outcome.status, outcome.results) == ("infrastructure", (None,))
    assert "failed twice" in outcome.detail


def test_closing_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    others = set(descendants(os.getpid()))
    with ProcessSandbox(workers=1) as fresh:
        fresh.run(Program(code="x = 1"))
        assert set(descendants(os.getpid())) - others
    assert not list(tmp_path.iterdir()) and not set(descendants(os.getpid())) - others


def test_a_weak_sandbox_must_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Layers, "level", "weak")
    with ProcessSandbox(workers=1) as fresh, pytest.raises(WeakSandbox, match="allow_weak: true"):
        fresh.run(Program(code="x = 1"))
    with ProcessSandbox(workers=1, allow_weak=True) as allowed:
        assert allowed.run(Program(code="x = 1")).status == "untested"


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Program]:
    """Return the list to which every run of a program by a worker is added."""
    tried: list[Program] = []
    genuine = launcher._Worker.run

    def counted(self: launcher._Worker, program: Program) -> Outcome:
        tried.append(program)
        return genuine(self, program)

    monkeypatch.setattr(launcher._Worker, "run", counted)
    return tried


SLEEPER = Program(code="import time\ntime.sleep(9)")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts how long a process waits for a core")
def test_a_sleeper_costs_one_run_and_one_worker(tried: list[Program]) -> None:
    right = Program(code=ADD, tests=("assert add(1, 2) == 3",))
    with ProcessSandbox(workers=2, cpu_s=1, wall_s=3) as fresh:
        fresh.run(right)
        outcomes = fresh.run_many([SLEEPER, *[right] * 20])
        began = time.monotonic()
        assert next(outcomes).status == "timeout"
        assert [outcome.status for outcome in outcomes] == ["passed"] * 20
        assert time.monotonic() - began < 5  # the other worker went on meanwhile
    assert tried.count(SLEEPER) == 1


def test_a_program_that_waited_for_a_core_runs_again_alone(
    tried: list[Program], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The referee and the zygotes are started by exec, so this changes a copy of the package that they load."""
    package = tmp_path / "bilora"
    shutil.copytree(Path(launcher.__file__).parent, package / "sandbox")
    clock = package / "sandbox" / "scheduling.py"
    clock.write_text(clock.read_text(encoding="utf-8") + "\n\nrun_queue_wait_s = lambda pid: None\n", encoding="utf-8")
    monkeypatch.setattr(spawning, "_SCRIPT", str(package / "sandbox" / "bare.py"))
    with ProcessSandbox(workers=2, cpu_s=1, wall_s=2) as fresh:
        assert fresh.run(SLEEPER).status == "timeout"
    assert tried.count(SLEEPER) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes through /proc")
def test_closing_ends_at_once_what_another_thread_runs() -> None:
    before = set(descendants(os.getpid()))
    closed = ProcessSandbox(workers=1, cpu_s=30, wall_s=60)
    outcomes: list[Outcome] = []
    runs = threading.Thread(target=lambda: outcomes.append(closed.run(Program(code="while True: pass"))))
    runs.start()
    deadline = time.monotonic() + 10
    while len(set(descendants(os.getpid())) - before) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    closed.close()
    runs.join(timeout=5)
    assert [outcome.status for outcome in outcomes] == ["infrastructure"]
    assert set(descendants(os.getpid())) <= before
