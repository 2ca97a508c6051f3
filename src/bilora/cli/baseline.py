"""The verbs baseline show and baseline forget."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import typer

from bilora.cli.data import TaskName

app = typer.Typer(help="The adapters that new ones are measured against.", no_args_is_help=True)


@app.command("show")
def show_baseline() -> None:
    """Print the promoted adapter and the best ever promoted one of each task."""
    from bilora.evaluation.baseline import CHAMPION, CURRENT, read_baseline
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    standing = read_baseline(workspace.baseline)
    if not standing:
        print("no adapter has been promoted; new ones are measured against the base model")
    for name, entries in standing.items():
        for place in (CURRENT, CHAMPION):
            entry = entries[place]
            known = [value for value in entry["scores"].get(entry["metric"], {}).values() if value is not None]
            mean = sum(known) / len(known) if known else float("nan")
            print(f"{name} {place}: {entry['adapter_sha256'][:12]}, {entry['metric']} {mean:.3f}, n {len(known)}")


@app.command("forget")
def forget_baseline(task: TaskName) -> None:
    """Drop a task's entries, so that its next adapter is measured against the base model alone."""
    from bilora.publishing.promote import forget as drop
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    drop(task, workspace.baseline, workspace.history, created_utc=datetime.now(UTC).isoformat(timespec="seconds"))
    print(f"baseline forget {task}: done, and noted in {workspace.history}")
