"""Checks of free memory and disk space, and whether freed memory stays in the process."""

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
    """Return the bytes that can be allocated without swapping, within the container's limit; None if unknown.

    The kernel's file cache counts as free: the kernel drops it when memory is needed.
    """
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    try:
        limit = int((CGROUP / "memory.max").read_text())  # "max" if there is no limit
        used = int((CGROUP / "memory.current").read_text())
        counts = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        return min(free, limit - used + int(counts["inactive_file"]))
    except (OSError, KeyError, ValueError):
        return free


def kv_bytes_per_token(config: PretrainedConfig, bytes_per_value: int) -> int:
    """Return the size of one token's keys and values in a KV cache."""
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    return int(2 * config.num_hidden_layers * key_heads * head_size * bytes_per_value)


def require_memory(size: int, work: str, remedy: str) -> None:
    """Raise NotReady with `remedy` if less than `size` bytes of memory are free for `work`."""
    free = free_memory()
    if free is not None and free < size:
        raise NotReady(f"{work} needs {size / GIB:.1f} GiB of memory and {free / GIB:.1f} GiB are free. {remedy}")


def require_disk(folder: Path, size: int, work: str) -> None:
    """Raise NotReady if less than `size` bytes are free on the disk of `folder`."""
    existing = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise NotReady(
            f"{work} needs {size / GIB:.1f} GiB on the disk of {folder} and {free / GIB:.1f} GiB are free. "
            "Delete files that you do not need."
        )


def keep_freed_memory() -> bool:
    """Stop glibc from returning freed memory to the kernel; return whether glibc accepted the setting.

    Otherwise each training step maps, zeroes and unmaps every large tensor, and a small model on a CPU spends much of
    the step on page faults.
    """
    mallopt = _glibc("mallopt")
    if mallopt is None:
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: _TOP_PAD_BYTES}
    return all(mallopt(name, value) == 1 for name, value in settings.items())


def return_freed_memory() -> None:
    """Return free memory to the kernel; needed from time to time after `keep_freed_memory`."""
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _glibc(function: str) -> Callable[..., int] | None:
    """Return a function of glibc; None with another C library."""
    return getattr(ctypes.CDLL(None), function, None) if sys.platform == "linux" else None
