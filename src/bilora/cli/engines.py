"""The engine that params name for chat, generate, serve and the page."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bilora.inference.engine import BatchedEngine
    from bilora.params import Params


def answering(
    params: Params, adapters: Mapping[str, Path], *, batch_size: int, max_waiting: int | None = None
) -> BatchedEngine[Any]:
    """Bring the base and these adapters (task name → folder) into memory; llama.cpp's files are made if not there.

    What a user must know of the base's chat template is printed.
    """
    engine = _engine(params, adapters, batch_size, max_waiting)
    for remark in engine.remarks():
        print(remark, file=sys.stderr)
    return engine


def _engine(
    params: Params, adapters: Mapping[str, Path], batch_size: int, max_waiting: int | None
) -> BatchedEngine[Any]:
    from bilora.cli import wiring

    wiring.quiet_libraries()
    chosen = params.inference
    if chosen.quantization is None:
        from bilora.bases.loading import load_base
        from bilora.inference.torch.engine import TorchEngine

        return TorchEngine(load_base(params.base), adapters, batch_size=batch_size, max_waiting=max_waiting)
    from bilora.cli.progress import bar
    from bilora.inference.llamacpp.engine import LlamaEngine

    shown = functools.partial(bar, unit="tensors")
    return LlamaEngine(
        params.base, chosen.quantization, adapters, batch_size=batch_size, max_waiting=max_waiting, shown=shown
    )
