"""Load a base to train an adapter on."""

from __future__ import annotations

from bilora.bases.base import Base
from bilora.bases.loading import LoadedBase
from bilora.inference.memory import keep_freed_memory


def load_for_training(base: Base) -> LoadedBase:
    """Load a base for training, in 4-bit if params say so. On CPU, also let the allocator keep freed memory.

    Raises:
        BadData, NotReady, Unreachable: see `Base.load`.
    """
    import torch

    if not torch.cuda.is_available():
        keep_freed_memory()
    return base.load(training=True)
