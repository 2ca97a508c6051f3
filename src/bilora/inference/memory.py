"""Whether memory and disk have room for what is about to be done, asked before it begins."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from bilora.errors import NotReady

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
GIB = 2**30


def free_memory() -> int | None:
    """Return how many bytes can be used without swapping, the container's limit included; None if nobody tells.

    What the kernel keeps of files counts as free: it gives that up when asked.
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


def token_bytes(config: Any, number: int) -> int:
    """Return how large the keys and values of one token are, in a model of numbers of `number` bytes each."""
    heads = config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(2 * config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads) * head * number)


def need_memory(size: int, work: str, remedy: str) -> None:
    """Raise NotReady, one sentence with `remedy`, if less than `size` bytes of memory are free for `work`."""
    free = free_memory()
    if free is not None and free < size:
        raise NotReady(f"{work} needs {size / GIB:.1f} GiB of memory and {free / GIB:.1f} GiB are free. {remedy}")


def need_disk(folder: Path, size: int, work: str) -> None:
    """Raise NotReady, one sentence, if less than `size` bytes are free on the disk of `folder`."""
    there = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if free < size:
        raise NotReady(
            f"{work} needs {size / GIB:.1f} GiB on the disk of {folder} and {free / GIB:.1f} GiB are free. Make room."
        )
