"""The verbs baseline show, baseline forget and baseline upgrade."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import typer

from bilora.cli.data import TaskName

app = typer.Typer(help="The adapters that new ones are measured against.", no_args_is_help=True)


@app.command("show")
def show_baseline() -> None:
    """Print the promoted adapter and the best ever promoted one of each task."""
    from bilora.results import read_baseline
    from bilora.workspace import Workspace

    baseline = read_baseline(Workspace(Path()).baseline)
    if not baseline.tasks:
        print("no adapter has been promoted; new ones are measured against the base model")
    for name, incumbents in baseline.tasks.items():
        for place, entry in incumbents.entries().items():
            mean = entry.mean()
            score = "unscored" if mean is None else f"{mean:.3f}"
            print(
                f"{name} {place}: {entry.adapter_sha256[:12]}, {entry.metric} {score}, n {len(entry.scored_values())}"
            )


@app.command("forget")
def forget_baseline(task: TaskName) -> None:
    """Drop a task's entries, so that its next adapter is measured against the base model alone."""
    from bilora.publishing.promote import forget_incumbents
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    now = datetime.now(UTC).isoformat(timespec="seconds")
    forget_incumbents(task, workspace.baseline, workspace.history, created_utc=now)
    print(f"baseline forget {task}: done, and noted in {workspace.history}")


@app.command("upgrade")
def upgrade() -> None:
    """Rewrite a baseline.json that an earlier version of BiLoRA wrote; every score is kept."""
    from bilora.publishing.promote import upgrade_baseline
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    now = datetime.now(UTC).isoformat(timespec="seconds")
    changed = upgrade_baseline(workspace.baseline, workspace.history, created_utc=now)
    print(f"baseline upgrade: {f'{workspace.baseline} rewritten; commit it' if changed else 'nothing to do'}")
