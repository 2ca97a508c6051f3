"""The command pin."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer


def pin(
    file: Annotated[
        Path | None, typer.Argument(help="A profile to pin instead of params.yaml.", show_default=False)
    ] = None,
) -> None:
    """Pin every hub model and dataset in params.yaml to its newest commit, unless it is pinned; all or none."""
    from bilora.pinning import unpinned_revisions, with_commits
    from bilora.storage import atomic
    from bilora.textfiles import encoding_of
    from bilora.workspace import Workspace

    path = file or Workspace(Path()).params_file
    text, revisions = unpinned_revisions(path)
    if not revisions:
        print(f"pin: nothing to do; every hub revision in {path} is a commit")
        return

    from bilora.hub.client import connect
    from bilora.hub.commits import newest_commit
    from bilora.hub.token import hub_token

    api = connect(hub_token(), timeout_s=30.0)
    commits = [newest_commit(api, each.id, each.kind, each.revision) for each in revisions]
    lines = [f"{each.key}.revision: {commit}" for each, commit in zip(revisions, commits, strict=True)]
    data = path.read_bytes()
    byte_order_mark = data[: encoding_of(data)[1]]
    with atomic(path) as temporary:
        temporary.write_bytes(byte_order_mark + with_commits(text, revisions, commits).encode())
        _check(temporary, path, lines)
    for line, each in zip(lines, revisions, strict=True):
        branch = f" on {each.revision}" if each.revision else ""
        print(f"pin: {line}, the newest of {each.id}{branch}")
    print(f"pin: {path} is pinned; run `dvc repro`")


def _check(pinned: Path, path: Path, lines: list[str]) -> None:
    """Check that the new text is YAML without an unpinned revision.

    Raises:
        BadData: it is not, because a revision has an anchor or spans lines.
    """
    from bilora.errors import BadData, ParamsError
    from bilora.pinning import unpinned_revisions

    with contextlib.suppress(ParamsError):
        if not unpinned_revisions(pinned)[1]:
            return
    raise BadData(path, f"`bilora pin` cannot edit this YAML; write {'; '.join(lines)}.")
