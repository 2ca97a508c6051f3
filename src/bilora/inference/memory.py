"""Checks of free memory and disk before work begins, and the setting that keeps freed memory in the process."""

from __future__ import annotations

import ctypes
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bilora.errors import NotReady

if TYPE_CHECKING:
    from transformers import PretrainedConfig

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
GIB = 2**30

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
"""Parameters of glibc's mallopt(3)."""
_TOP_PAD_BYTES = 256 * 2**20


def free_memory() -> int | None:
    """Return how many bytes can be used without swapping, within the container's limit; None if it is unknown.

    The kernel's file cache counts as free: the kernel gives it up when memory is needed.
    """
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    try:
        limit = int((CGROUP / "memory.max").read_text())  # "max" where there is no limit
        used = int((CGROUP / "memory.current").read_text())
        counts = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        return min(free, limit - used + int(counts["inactive_file"]))
    except (OSError, KeyError, ValueError):
        return free


def token_bytes(config: PretrainedConfig, number_bytes: int) -> int:
    """Return the size of one token's keys and values, in a KV cache of numbers of `number_bytes` bytes each."""
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    return int(2 * config.num_hidden_layers * key_heads * head_size * number_bytes)


def need_memory(size: int, work: str, remedy: str) -> None:
    """Raise NotReady, one sentence with `remedy`, if less than `size` bytes of memory are free for `work`."""
    free = free_memory()
    if free is not None and free < size:
        raise NotReady(f"{work} needs {size / GIB:.1f} GiB of memory and {free / GIB:.1f} GiB are free. {remedy}")


def need_disk(folder: Path, size: int, work: str) -> None:
    """Raise NotReady, one sentence, if less than `size` bytes are free on the disk of `folder`."""
    existing = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise NotReady(
            f"{work} needs {size / GIB:.1f} GiB on the disk of {folder} and {free / GIB:.1f} GiB are free. Make room."
        )


def keep_freed_memory() -> bool:
    """Set glibc never to return freed memory to the kernel; return whether it could be set.

    Otherwise every large tensor is mapped, zeroed page by page and unmapped again at each training step, and a small
    model on CPU spends a good part of the step on page faults.
    """
    mallopt = _glibc("mallopt")
    if mallopt is None:
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: _TOP_PAD_BYTES}
    return all(mallopt(name, value) == 1 for name, value in settings.items())


def return_freed_memory() -> None:
    """Return to the kernel what is free now; needed from time to time where `keep_freed_memory` is set."""
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _glibc(function: str) -> Callable[..., int] | None:
    """Return a function of glibc's; None with another C library."""
    return getattr(ctypes.CDLL(None), function, None) if sys.platform == "linux" else None
