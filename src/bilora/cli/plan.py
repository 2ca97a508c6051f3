"""The command plan."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bilora.records import RunRecord


def _last_runs(runs: Path) -> dict[str, RunRecord]:
    """Return the last run record of each task; records of another version are skipped."""
    from bilora.errors import BadData
    from bilora.records import RunRecord
    from bilora.storage import read_record

    records = {}
    for path in sorted(runs.glob("*/run.json")):
        with contextlib.suppress(BadData):
            record = read_record(path, RunRecord)
            records[record.task] = record
    return records


def _planned(run: RunRecord) -> str:
    """Return the plan of a run; empty if it was not recorded."""
    if run.planned_s is None or run.planned_memory_bytes is None:
        return ""
    return f" (planned: {run.planned_s:.0f} s, {run.planned_memory_bytes / 2**30:.1f} GiB)"


def plan() -> None:
    """Estimate the pipeline's time, memory, tokens and disk, and compare it with the last run."""
    from bilora.cli.engines import prepare_base
    from bilora.estimate import BENCHMARK_S, format_duration
    from bilora.library_logs import silence_libraries
    from bilora.planning import Planner
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    params = workspace.params
    silence_libraries()
    base = prepare_base(workspace)
    precision = f"{base.precision} (dtype auto)" if base.dtype == "auto" else base.precision
    last_runs = _last_runs(workspace.runs)
    print(f"base {base.id}: {base.quantized or precision} in training, {precision} in answers")
    planner = Planner(workspace)
    seconds = BENCHMARK_S
    for name, task in params.tasks.items():
        planned = planner.training(name)
        counts = planned.plan
        print(
            f"{name}: {counts.trainable_parameters:,} of {counts.base_parameters:,} parameters are trained "
            f"(r {task.adapter.rank} on {', '.join(task.adapter.target_modules)}); "
            f"{counts.tokens / 1e6:.2f} M tokens in {task.training.steps} steps, {format_duration(planned.seconds)}; "
            f"memory {counts.memory_bytes / 2**30:.1f} GiB"
        )
        stages = planner.stage_times(name)
        seconds += stages.data + stages.train + stages.evaluate
        print(
            f"  data {format_duration(stages.data)}, train {format_duration(stages.train)}, "
            f"evaluate {format_duration(stages.evaluate)} at the current speed of this machine"
        )
        if run := last_runs.get(name):
            print(
                f"  last run here: {run.tokens / 1e6:.2f} M tokens at {run.tokens_per_s:,.0f} tokens/s, "
                f"{run.duration_s:.0f} s, {run.peak_memory_bytes / 2**30:.1f} GiB{_planned(run)}"
            )
    print(f"whole pipeline: {format_duration(seconds)}")
    print(f"disk: {shutil.disk_usage(workspace.root).free / 2**30:.0f} GiB free")
    print(f"downloads: {base.download_note or 'none'}")
