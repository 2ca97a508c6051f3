"""Load a base for inference."""

from __future__ import annotations

from dataclasses import replace

from bilora.bases.base import Base
from bilora.bases.loading import LoadedBase
from bilora.inference.memory import keep_freed_memory


def load_for_inference(base: Base) -> LoadedBase:
    """Load a base in the precision that is served, its layers joined and, in 16-bit where that is faster, packed.

    Raises:
        BadData, Unreachable: as `Base.load` does.
    """
    import torch

    if not torch.cuda.is_available():
        keep_freed_memory()
    return tune_for_inference(base.load(training=False))


def tune_for_inference(loaded: LoadedBase) -> LoadedBase:
    """Join and pack the layers of a loaded base, which can be neither trained nor saved afterwards."""
    from bilora.inference.torch.cpu_tuning import pack_linear_layers
    from bilora.inference.torch.joined_layers import join_layers

    join_layers(loaded.model)
    return replace(loaded, mode=f"{loaded.mode} packed for oneDNN") if pack_linear_layers(loaded.model) else loaded
