"""The verb plan."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any


def _last_runs() -> dict[str, dict[str, Any]]:
    from bilora.cli import wiring
    from bilora.storage import read_json

    found = {}
    for path in sorted(wiring.RUNS.glob("*/run.json")):
        record = read_json(path)
        found[record["task"]] = record
    return found


def plan() -> None:
    """Say what training will take in memory, tokens and disk, beside what the last run took."""
    from bilora.cli import wiring
    from bilora.errors import Unreachable
    from bilora.training.plan import plan_task

    params = wiring.load_params()
    wiring.quiet_libraries()
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(params.base.id, revision=params.base.revision)
    except OSError as error:
        raise Unreachable(f"The config of {params.base.id} could not be read ({str(error).splitlines()[0]}).") from None
    runs = _last_runs()
    print(
        f"base {params.base.id}: {params.base.quantize or params.base.dtype} in training, "
        f"{params.base.dtype} in answers"
    )
    for name, task in params.tasks.items():
        planned = plan_task(config, params.base, task)
        print(
            f"{name}: {planned.trainable_parameters:,} of {planned.base_parameters:,} parameters are trained "
            f"(r {task.adapter.rank} on {', '.join(task.adapter.target_modules)}); "
            f"at most {planned.tokens_at_most / 1e6:.2f} M tokens in {task.training.steps} steps; "
            f"about {planned.memory_bytes / 2**30:.2f} GiB"
        )
        if run := runs.get(name):
            print(
                f"  last run here: {run['tokens'] / 1e6:.2f} M tokens at {run['tokens_per_s']:,.0f} tokens/s, "
                f"{run['duration_s']:.0f} s, {run['peak_memory_bytes'] / 2**30:.2f} GiB with the framework"
            )
    print(f"disk: {shutil.disk_usage(Path.cwd()).free / 2**30:.0f} GiB free")
    if params.base.local:
        print("downloads: none")
    else:
        print(f"downloads: {params.base.id} at {params.base.revision}, once, into the hub cache")
