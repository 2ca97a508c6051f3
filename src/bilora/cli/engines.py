"""The adapters and the engine of chat, generate, serve and the page, with what a user must know of them printed."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bilora.errors import BaseMismatch, UnknownModel

if TYPE_CHECKING:
    from bilora.bases.base import Base
    from bilora.inference.engines import LocalEngine
    from bilora.workspace import Workspace


def adapters_to_serve(workspace: Workspace, bundle: str | None, *, required: str | None = None) -> dict[str, Path]:
    """Return the folders of the adapters to serve: those of a bundle, else all that were trained here for this base.

    Adapters of another base or chat template are left out and reported, so that the base and the others answer.

    Args:
        required: who is to answer, the base or an adapter.

    Raises:
        UnknownModel: there is no such adapter.
        BaseMismatch: it is for another base.
    """
    from bilora.inference.engine import BASE_SYSTEM

    folders = _fitting(workspace, required) if bundle is None else workspace.bundle(bundle)
    known = (BASE_SYSTEM, *folders)
    if required is not None and required not in known:
        raise UnknownModel(required, known)
    return folders


def _fitting(workspace: Workspace, required: str | None) -> dict[str, Path]:
    folders = {}
    for name, found in workspace.fitting_adapters():
        if not isinstance(found, BaseMismatch):
            folders[name] = found
        elif name == required:
            raise found
        else:
            print(f"left out: {found}", file=sys.stderr)
    return folders


def prepare_base(workspace: Workspace) -> Base:
    """Return the base of params.yaml after its files were made ready, with a progress bar if that takes a while."""
    from bilora.cli.progress import bar

    base = workspace.base()
    base.prepare(functools.partial(bar, unit="tensors"))
    return base


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
