"""The verb pin."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer


def pin(
    file: Annotated[
        Path | None, typer.Argument(help="A profile to pin in place of params.yaml.", show_default=False)
    ] = None,
) -> None:
    """Write the newest commit of every hub model and dataset that is not pinned into params.yaml; all or none."""
    from bilora.pinning import open_revisions, with_commits
    from bilora.storage import atomic
    from bilora.textfiles import encoding_of
    from bilora.workspace import Workspace

    path = file or Workspace(Path()).params_file
    text, revisions = open_revisions(path)
    if not revisions:
        print(f"pin: nothing to do; every hub revision in {path} is a commit")
        return

    from bilora.hub.client import connect
    from bilora.hub.commits import newest_commit
    from bilora.hub.token import hub_token

    api = connect(hub_token(), timeout_s=30.0)
    commits = [newest_commit(api, one.id, one.kind, one.revision) for one in revisions]
    data = path.read_bytes()
    mark = data[: encoding_of(data)[1]]
    with atomic(path) as temporary:
        temporary.write_bytes(mark + with_commits(text, revisions, commits).encode())
        _check(
            temporary, path, [f"{one.place}.revision: {commit}" for one, commit in zip(revisions, commits, strict=True)]
        )
    for one, commit in zip(revisions, commits, strict=True):
        branch = f" on {one.revision}" if one.revision else ""
        print(f"pin: {one.place}.revision: {commit}, the newest of {one.id}{branch}")
    print(f"pin: {path} is pinned; run `dvc repro`")


def _check(written: Path, path: Path, lines: list[str]) -> None:
    """Check that the new text is YAML without an open revision.

    Raises:
        BadData: it is not, because the revision has an anchor or spans lines.
    """
    from bilora.errors import BadData, ParamsError
    from bilora.pinning import open_revisions

    with contextlib.suppress(ParamsError):
        if not open_revisions(written)[1]:
            return
    raise BadData(path, f"its spelling is too unusual to be changed here; write {'; '.join(lines)}.")
