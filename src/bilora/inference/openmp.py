"""Release of OpenMP's thread pools, of which each computing thread has one."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

_PAUSE_SOFT = 1
"""`omp_pause_soft` of OpenMP 5.0: free what can be created again."""


def release_openmp_threads() -> None:
    """Free the calling thread's OpenMP pool; its next computation creates a new one.

    libgomp counts idle pools as busy threads. With more of these than processors its workers sleep at each barrier
    instead of spinning, and a small model takes twice as long per token (`perf/openmp.py`). So callers release their
    pool before they wait for the engine's thread.
    """
    _pause()(_PAUSE_SOFT)


@cache
def _pause() -> Callable[[int], object]:
    try:
        pause: Callable[[int], object] = ctypes.CDLL(None).omp_pause_resource_all
    except (AttributeError, OSError, TypeError):  # no OpenMP, or a version before 5.0
        return lambda _: None
    return pause
