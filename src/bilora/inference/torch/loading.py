"""Load a base model for inference."""

from __future__ import annotations

from dataclasses import replace

from bilora.bases.base import Base
from bilora.bases.loading import LoadedBase
from bilora.inference.memory import keep_freed_memory


def load_for_inference(base: Base) -> LoadedBase:
    """Load a base in its inference precision, with fused and, where that is faster, packed layers.

    Raises:
        BadData, Unreachable: as `Base.load` does.
    """
    import torch

    if not torch.cuda.is_available():
        keep_freed_memory()
    return tune_for_inference(base.load(training=False))


def tune_for_inference(loaded: LoadedBase) -> LoadedBase:
    """Fuse and pack the layers of a loaded base, which can be neither trained nor saved afterwards."""
    from bilora.inference.torch.cpu_tuning import pack_linear_layers
    from bilora.inference.torch.fused_layers import fuse_layers

    fuse_layers(loaded.model)
    return replace(loaded, mode=f"{loaded.mode} packed for oneDNN") if pack_linear_layers(loaded.model) else loaded
