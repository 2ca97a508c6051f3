"""OpenMP keeps a pool of worker threads for every thread that has computed something."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

_PAUSE_SOFT = 1
"""`omp_pause_soft` of OpenMP 5.0: free what can be created again."""


def release_openmp_threads() -> None:
    """Free the calling thread's OpenMP pool; its next computation creates another.

    Idle pools count as busy threads. With more of them than processors, libgomp's workers sleep instead of spinning
    while they wait for each other, and a small model takes twice as long per token (`perf/openmp.py`). So callers
    release their pool before they block on the engine's thread.
    """
    _pause()(_PAUSE_SOFT)


@cache
def _pause() -> Callable[[int], object]:
    try:
        pause: Callable[[int], object] = ctypes.CDLL(None).omp_pause_resource_all
    except (AttributeError, OSError, TypeError):  # no OpenMP, or a version before 5.0
        return lambda _: None
    return pause
