"""The adapters and the engine of chat, generate, serve and the page, with what a user must know of them printed."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bilora.errors import OtherBase

if TYPE_CHECKING:
    from bilora.inference.engines import LocalEngine
    from bilora.workspace import Workspace


def adapters_to_serve(workspace: Workspace, bundle: str | None, *, required: str | None = None) -> dict[str, Path]:
    """Return the folders of the adapters to serve: those of a bundle, else all that were trained here for this base.

    Adapters of another base or chat template are left out and reported, so that the base and the others answer.

    Args:
        required: the one that is to answer; if it is for another base, that is an error.
    """
    if bundle is not None:
        return workspace.bundle(bundle)
    folders = {}
    for name, found in workspace.fitting_adapters():
        if not isinstance(found, OtherBase):
            folders[name] = found
        elif name == required:
            raise found
        else:
            print(f"left out: {found}", file=sys.stderr)
    return folders


def load_engine(
    workspace: Workspace, adapters: Mapping[str, Path], *, batch_size: int, max_waiting: int | None = None
) -> LocalEngine:
    """Load the engine that params name, with a progress bar, and print the remarks on the base's chat template."""
    from bilora.cli.progress import bar

    bars = functools.partial(bar, unit="tensors")
    engine = workspace.load_engine(adapters, batch_size=batch_size, max_waiting=max_waiting, bars=bars)
    for remark in engine.remarks():
        print(remark, file=sys.stderr)
    return engine
