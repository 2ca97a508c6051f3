"""The verb base fetch."""

from __future__ import annotations

from pathlib import Path

import typer

app = typer.Typer(help="Get the base model.", no_args_is_help=True)


@app.callback()
def base() -> None:
    """Get the base model."""


@app.command("fetch")
def fetch() -> None:
    """Download the base of params.yaml, unless it is here, and make it ready for work without a network."""
    from bilora.cli.engines import prepare_base
    from bilora.library_logs import silence_libraries
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    workspace.base().fetch()
    silence_libraries()
    ready = prepare_base(workspace)
    print(f"base: {ready.id} at {ready.identity[:12]} is in {ready.folder()}")
