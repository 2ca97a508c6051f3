"""The verb rollback."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

VersionOption = Annotated[
    str | None,
    typer.Option("--to", metavar="REV", help="Start of a commit or digest. [default: the version before this one]"),
]


def rollback(to: VersionOption = None) -> None:
    """Publish the bytes of an earlier version again; the baseline stays, so the bar is not lowered."""
    from bilora.cli.push_adapters import print_hub_fallback
    from bilora.publishing.rollback import rollback as run
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    hub, repository = workspace.hub_to_publish()
    print_hub_fallback(workspace, repository)
    done = run(hub, to)
    print(f"rollback: {'served again' if done.changed else 'served already'} in {done.location}")
