"""The verbs profile list and profile use."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="List the profiles, or use one.", no_args_is_help=True)


@app.command("list")
def list_profiles() -> None:
    """List the profiles; the one in use is marked."""
    from bilora.cli import wiring
    from bilora.params import PARAMS_FILE

    used = PARAMS_FILE.read_bytes() if PARAMS_FILE.is_file() else b""
    for path in sorted(wiring.PROFILES.glob("*.yaml")):
        params = wiring.load_params(path)
        mark = "*" if path.read_bytes() == used else " "
        print(f"{mark} {path.stem:10} base {params.base.id}, tasks {', '.join(params.tasks)}")


@app.command("use")
def use(
    name: Annotated[str, typer.Argument(help="A file of profiles/, without its ending.", show_default=False)],
) -> None:
    """Make a profile the params.yaml; params that no profile holds are kept beside it."""
    from bilora.cli import wiring
    from bilora.errors import BadData
    from bilora.params import PARAMS_FILE
    from bilora.storage import write_bytes

    path = wiring.PROFILES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in wiring.PROFILES.glob("*.yaml")))
        raise BadData(path, f"there is no such profile; there are {known}.")
    wiring.load_params(path)
    chosen = path.read_bytes()
    current = PARAMS_FILE.read_bytes() if PARAMS_FILE.is_file() else chosen
    if current not in {found.read_bytes() for found in wiring.PROFILES.glob("*.yaml")}:
        kept = PARAMS_FILE.with_name(f"{PARAMS_FILE.name}.kept")
        write_bytes(kept, current)
        print(f"profile: your edited params were kept in {kept}")
    write_bytes(PARAMS_FILE, chosen)
    print(f"profile: {PARAMS_FILE} is now {name}; run `dvc repro`")
