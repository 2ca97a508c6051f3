"""OpenMP's own threads, which every thread that has computed something keeps for its next time."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

SOFT = 1
"""`omp_pause_soft` of OpenMP 5.0: what can be made again is let go."""


def rest() -> None:
    """Let the calling thread's OpenMP threads go; when it computes again it gets new ones.

    Those of a thread that only waits are counted as if they worked. Where there are more of them than processors,
    libgomp's threads no longer spin for the moment that they wait for each other but sleep, and a small model
    needs twice as long for a token: `perf/openmp.py`.
    """
    _pause()(SOFT)


@cache
def _pause() -> Callable[[int], object]:
    try:
        found: Callable[[int], object] = ctypes.CDLL(None).omp_pause_resource_all
    except (AttributeError, OSError, TypeError):  # no OpenMP, an older one, or no way to ask for it on this system
        return lambda _: None
    return found
