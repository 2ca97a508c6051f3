"""Run the pipeline in steps; print the plan with estimated times first, and the measured times at the end.

One `dvc repro` runs one stage at a time. Several at once run the stages of different tasks in parallel. That is faster
for data stages, and for training and evaluation only with a small base: a large base uses all cores, and each process
loads it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bilora.cli import LAST_FAULT
from bilora.errors import BiloraError, ExitCode
from bilora.workspace import Workspace

LINE = re.compile(rb"[\r\n]+")
SMALL_BASE = 20_000_000
"""Bases with fewer parameters are trained for all tasks in parallel."""

GATE_REFUSED = {ExitCode.REGRESSED, ExitCode.INCONCLUSIVE, ExitCode.INCOMPARABLE}


@dataclass(frozen=True)
class Step:
    """Stages that run in parallel, one `dvc repro` each; without stages, one `dvc repro` of the whole pipeline."""

    title: str
    stages: tuple[str, ...]
    estimate_s: float


def steps_to_do(workspace: Workspace, stale: set[str]) -> Iterator[Step]:
    """Yield the steps with stages that are stale or depend on a stale stage, each with its estimated time."""
    from bilora.estimate import BENCHMARK_S
    from bilora.planning import Planner

    planner = Planner(workspace)
    times = {name: planner.stage_times(name) for name in workspace.tasks}
    data, train, evaluate = [], [], []
    for task in workspace.tasks:
        if stale & {f"data-{verb}@{task}" for verb in ("download", "process", "split")}:
            data.append(task)
        if task in data or f"train@{task}" in stale:
            train.append(task)
        if task in train or f"evaluate@{task}" in stale:
            evaluate.append(task)
    if len(train) > 1 and planner.training(train[0]).plan.base_parameters < SMALL_BASE:
        alone = [times[task].data + times[task].train + times[task].evaluate for task in train]
        share = max(1.0, len(train) / (os.cpu_count() or 1))
        stages = tuple(f"evaluate@{task}" for task in train)
        yield Step(f"make data, train and evaluate {', '.join(train)} in parallel", stages, max(alone) * share)
    else:
        if data:
            stages = tuple(f"data-split@{task}" for task in data)
            yield Step(f"make the data of {', '.join(data)}", stages, max(times[task].data for task in data))
        for task in train:
            yield Step(f"train {task}", (f"train@{task}",), times[task].train)
        for task in evaluate:
            yield Step(f"evaluate {task}", (f"evaluate@{task}",), times[task].evaluate)
    yield Step("judge, and publish what passes", (), BENCHMARK_S)


def run_step(step: Step, environment: dict[str, str]) -> int:
    """Run a step and return DVC's exit code."""
    if len(step.stages) > 1:
        return _run_in_parallel(step.stages, environment)
    return subprocess.run(["dvc", "repro", *step.stages], env=environment, check=False).returncode


def _run_in_parallel(stages: Sequence[str], environment: dict[str, str]) -> int:
    """Run the stages, each with its share of the cores; return the first exit code that is not 0."""
    threads = str(max(1, (os.cpu_count() or 1) // len(stages)))
    width = max(map(len, stages))

    def run(stage: str) -> int:
        command = ["dvc", "--wait-for-lock", "repro", stage]
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"OMP_NUM_THREADS": threads, **environment},
        ) as process:
            assert process.stdout is not None
            unfinished = b""
            while data := os.read(process.stdout.fileno(), 1 << 16):
                *lines, unfinished = LINE.split(unfinished + data)
                for line in filter(None, lines):
                    print(f"{stage:{width}} │ {line.decode(errors='replace')}", flush=True)
        return process.returncode

    with ThreadPoolExecutor(len(stages)) as pool:
        return next(filter(None, pool.map(run, stages)), 0)


def stale_stages() -> set[str] | None:
    """Return the stages that DVC would run again; None if `dvc status` fails, which prints the reason."""
    status = subprocess.run(["dvc", "status", "--json"], stdout=subprocess.PIPE, check=False)
    return set(json.loads(status.stdout)) if status.returncode == 0 else None


def _baseline(workspace: Workspace) -> bytes:
    return workspace.baseline.read_bytes() if workspace.baseline.is_file() else b""


def announce(workspace: Workspace, steps: Sequence[Step]) -> None:
    """Print the steps with their estimated times."""
    from bilora.estimate import format_duration

    tasks = ", ".join(workspace.params.tasks)
    print(f"demo: one adapter per task ({tasks}) for the base {workspace.base().id}, evaluated against that base.")
    print(f"demo: {format_duration(sum(step.estimate_s for step in steps))} on this machine at its current speed:")
    for number, step in enumerate(steps, start=1):
        print(f"  {number}. {step.title}: {format_duration(step.estimate_s)}", flush=True)


def report(timings: Sequence[tuple[Step, float]]) -> None:
    """Print how long each step took, beside its estimate."""
    from bilora.estimate import format_duration

    print("demo: time (estimate)", flush=True)
    for title, seconds, estimate in [
        *((step.title, seconds, step.estimate_s) for step, seconds in timings),
        ("all steps", sum(seconds for _, seconds in timings), sum(step.estimate_s for step, _ in timings)),
    ]:
        print(f"  {title}: {int(seconds) // 60}:{int(seconds) % 60:02} ({format_duration(estimate)})", flush=True)


def explain_failure(step: Step, fault: Path) -> int:
    """Print the error of the stage that failed as the last line, and return its exit code."""
    record = fault.read_text(encoding="utf-8") if fault.is_file() else f"{int(ExitCode.INFRASTRUCTURE)} "
    code, _, message = record.partition(" ")
    if int(code) in GATE_REFUSED:
        message = "the gate did not pass every adapter; its verdicts are above."
    print(f"demo: could not {step.title}: {message or 'see the lines above.'}", file=sys.stderr)
    return int(code)


def main() -> int:
    """Return 0, or the exit code of the stage that failed."""
    workspace = Workspace(Path())
    try:
        workspace.params  # noqa: B018 - report the faults of params.yaml before DVC's
        if (stale := stale_stages()) is None:
            return ExitCode.INFRASTRUCTURE
        if not stale:
            print("demo: nothing to do; every stage is up to date")
            return 0
        print("demo: measuring the speed of this machine for some seconds", flush=True)
        steps = list(steps_to_do(workspace, stale))
    except BiloraError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.exit_code
    announce(workspace, steps)
    baseline = _baseline(workspace)
    timings: list[tuple[Step, float]] = []
    with tempfile.TemporaryDirectory(prefix="bilora-demo-") as folder:
        fault = Path(folder) / "fault"
        for number, step in enumerate(steps, start=1):
            print(f"demo: step {number} of {len(steps)}: {step.title}", flush=True)
            began = time.monotonic()
            if run_step(step, {LAST_FAULT: str(fault), **os.environ}):
                report(timings)
                return explain_failure(step, fault)
            timings.append((step, time.monotonic() - began))
    if _baseline(workspace) != baseline:
        # A promotion changes the baseline, on which the benchmark depends: without this it would be stale.
        print("demo: promoted; the benchmark runs again against the new baseline", flush=True)
        if code := subprocess.run(["dvc", "repro"], stdout=subprocess.DEVNULL, check=False).returncode:
            return code
    report(timings)
    return 0


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # no arguments
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        print("demo: interrupted; run `make demo` to continue from here.", file=sys.stderr)
        raise SystemExit(ExitCode.INTERRUPTED) from None
