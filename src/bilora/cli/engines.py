"""Load the adapters and the engine of chat, generate, serve and the page, and print remarks about them."""

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
    """Return the folders of the adapters in a bundle, or of those trained in this workspace.

    Workspace adapters of another base or chat template are skipped and reported.

    Args:
        required: "base" or the adapter that must be there.

    Raises:
        UnknownModel: there is no such adapter.
        BaseMismatch: it was trained on another base.
    """
    from bilora.inference.engine import BASE_SYSTEM

    folders = _compatible(workspace, required) if bundle is None else workspace.bundle(bundle)
    known = (BASE_SYSTEM, *folders)
    if required is not None and required not in known:
        raise UnknownModel(required, known)
    return folders


def _compatible(workspace: Workspace, required: str | None) -> dict[str, Path]:
    folders = {}
    for name, adapter in workspace.compatible_adapters():
        if not isinstance(adapter, BaseMismatch):
            folders[name] = adapter
        elif name == required:
            raise adapter
        else:
            print(f"skipped: {adapter}", file=sys.stderr)
    return folders


def prepare_base(workspace: Workspace) -> Base:
    """Prepare the files of the base in params.yaml, with a progress bar if it takes long, and return the base."""
    from bilora.cli.progress import bar

    base = workspace.base()
    base.prepare(functools.partial(bar, unit="tensors"))
    return base


def load_engine(
    workspace: Workspace, adapters: Mapping[str, Path], *, batch_size: int, max_waiting: int | None = None
) -> LocalEngine:
    """Load the engine of params.yaml with a progress bar, and print remarks about the base's chat template."""
    from bilora.cli.progress import bar

    bars = functools.partial(bar, unit="tensors")
    engine = workspace.load_engine(adapters, batch_size=batch_size, max_waiting=max_waiting, bars=bars)
    for remark in engine.remarks():
        print(remark, file=sys.stderr)
    return engine
