"""The command rollback."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

VersionOption = Annotated[
    str | None,
    typer.Option("--to", metavar="REV", help="Beginning of a commit or digest. [default: the previous version]"),
]


def rollback(to: VersionOption = None) -> None:
    """Publish an earlier version again. The incumbents stay, so the gate does not become easier."""
    from bilora.cli.push_adapters import print_hub_fallback
    from bilora.publishing.rollback import rollback as run
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    hub, repository = workspace.hub_to_publish()
    print_hub_fallback(workspace, repository)
    result = run(hub, to)
    print(f"rollback: {'published again' if result.changed else 'already published'} in {result.location}")
