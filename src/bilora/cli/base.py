"""The command base fetch."""

from __future__ import annotations

from pathlib import Path

import typer

app = typer.Typer(help="Download the base model.", no_args_is_help=True)


@app.callback()
def base() -> None:
    """Download the base model."""


@app.command("fetch")
def fetch() -> None:
    """Download the base of params.yaml, unless it is in the cache, and prepare it for offline use."""
    from bilora.cli.engines import prepare_base
    from bilora.library_logs import silence_libraries
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    workspace.base().fetch()
    silence_libraries()
    ready = prepare_base(workspace)
    print(f"base: {ready.id} at {ready.identity[:12]} is in {ready.folder()}")
