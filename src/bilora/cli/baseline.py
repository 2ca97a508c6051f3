"""The commands baseline show, baseline forget and baseline upgrade."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from bilora.cli.data import TaskName

if TYPE_CHECKING:
    from bilora.records import Scale

app = typer.Typer(help="The incumbents: adapters that new ones are compared with.", no_args_is_help=True)


@app.command("show")
def show_baseline() -> None:
    """Print each task's incumbents: the adapter promoted last and the best one promoted so far."""
    from bilora.results import read_baseline
    from bilora.workspace import Workspace

    baseline = read_baseline(Workspace(Path()).baseline)
    if not baseline.tasks:
        print("no adapter has been promoted; new ones are compared with the base model")
    for name, incumbents in baseline.tasks.items():
        for role, entry in incumbents.entries().items():
            mean, scale = entry.mean(), _scale(name, entry.metric)
            score = "unscored" if mean is None else scale.text(mean)
            print(f"{name} {role}: {entry.adapter_sha256[:12]}, {scale.label} {score}, n {len(entry.scored_values())}")


def _scale(task: str, metric: str) -> Scale:
    """Return a metric's display scale; the default if the task no longer has it."""
    from bilora.records import Scale
    from bilora.tasks import known_tasks, load_task

    scales = load_task(task).scales if task in known_tasks() else {}
    return scales.get(metric) or Scale(label=metric)


@app.command("forget")
def forget_baseline(task: TaskName) -> None:
    """Remove a task's incumbents, so that its next adapter is compared only with the base model."""
    from bilora.publishing.promote import forget_incumbents
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    now = datetime.now(UTC).isoformat(timespec="seconds")
    forget_incumbents(task, workspace.baseline, workspace.history, created_utc=now)
    print(f"baseline forget {task}: done, and recorded in {workspace.history}")


@app.command("upgrade")
def upgrade() -> None:
    """Convert a baseline.json of an earlier version of BiLoRA; all scores stay."""
    from bilora.publishing.promote import upgrade_baseline
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    now = datetime.now(UTC).isoformat(timespec="seconds")
    changed = upgrade_baseline(workspace.baseline, workspace.history, created_utc=now)
    print(f"baseline upgrade: {f'{workspace.baseline} rewritten; commit it' if changed else 'nothing to do'}")
