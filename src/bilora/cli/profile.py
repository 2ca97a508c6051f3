"""The verbs profile list and profile use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="List the profiles, or use one.", no_args_is_help=True)


@app.command("list")
def list_profiles() -> None:
    """List the profiles; the one in use is marked."""
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    used = workspace.params_file.read_bytes() if workspace.params_file.is_file() else b""
    for path in sorted(workspace.profiles.glob("*.yaml")):
        params = workspace.read_params(path)
        mark = "*" if path.read_bytes() == used else " "
        print(f"{mark} {path.stem:10} base {workspace.base(params).id}, tasks {', '.join(params.tasks)}")


@app.command("use")
def use(
    name: Annotated[str, typer.Argument(help="A file of profiles/, without its ending.", show_default=False)],
) -> None:
    """Make a profile the params.yaml; params that no profile holds are kept beside it."""
    from bilora.errors import BadData
    from bilora.pinning import unpinned_revisions
    from bilora.storage import write_bytes
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    path = workspace.profiles / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in workspace.profiles.glob("*.yaml")))
        raise BadData(path, f"there is no such profile; there are {known}.")
    workspace.read_params(path)
    chosen = path.read_bytes()
    current = workspace.params_file.read_bytes() if workspace.params_file.is_file() else chosen
    if current not in {found.read_bytes() for found in workspace.profiles.glob("*.yaml")}:
        kept = workspace.params_file.with_name(f"{workspace.params_file.name}.kept")
        write_bytes(kept, current)
        print(f"profile: your edited params were kept in {kept}")
    write_bytes(workspace.params_file, chosen)
    _, unpinned = unpinned_revisions(workspace.params_file)
    print(f"profile: {workspace.params_file} is now {name}; run {'`bilora pin`, then ' if unpinned else ''}`dvc repro`")
