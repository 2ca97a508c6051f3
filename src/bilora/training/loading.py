"""A base in memory to train an adapter on."""

from __future__ import annotations

from bilora.bases.base import Base
from bilora.bases.loading import LoadedBase
from bilora.inference.memory import keep_freed_memory


def load_for_training(base: Base) -> LoadedBase:
    """Load the copy of a base that is trained on, 4-bit where params say so; on CPU, freed memory is kept.

    Raises:
        BadData, NotReady, Unreachable: as `Base.load` does.
    """
    import torch

    if not torch.cuda.is_available():
        keep_freed_memory()
    return base.load(training=True)
