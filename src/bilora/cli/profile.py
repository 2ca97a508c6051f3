"""The commands profile list and profile use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="List the profiles, or select one.", no_args_is_help=True)


@app.command("list")
def list_profiles() -> None:
    """List the profiles; an asterisk marks the one in use."""
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    current = workspace.params_file.read_bytes() if workspace.params_file.is_file() else b""
    for path in sorted(workspace.profiles.glob("*.yaml")):
        params = workspace.read_params(path)
        mark = "*" if path.read_bytes() == current else " "
        print(f"{mark} {path.stem:10} base {workspace.base(params).id}, tasks {', '.join(params.tasks)}")


@app.command("use")
def use(
    name: Annotated[str, typer.Argument(help="A file in profiles/, without its extension.", show_default=False)],
) -> None:
    """Copy a profile to params.yaml; edited params are saved beside it first."""
    from bilora.errors import BadData
    from bilora.pinning import unpinned_revisions
    from bilora.storage import write_bytes
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    path = workspace.profiles / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(profile.stem for profile in workspace.profiles.glob("*.yaml")))
        raise BadData(path, f"there is no such profile; known: {known}.")
    workspace.read_params(path)
    selected = path.read_bytes()
    current = workspace.params_file.read_bytes() if workspace.params_file.is_file() else selected
    if current not in {profile.read_bytes() for profile in workspace.profiles.glob("*.yaml")}:
        backup = workspace.params_file.with_name(f"{workspace.params_file.name}.kept")
        write_bytes(backup, current)
        print(f"profile: your edited params are saved in {backup}")
    write_bytes(workspace.params_file, selected)
    _, unpinned = unpinned_revisions(workspace.params_file)
    print(f"profile: {workspace.params_file} is now {name}; run {'`bilora pin`, then ' if unpinned else ''}`dvc repro`")
