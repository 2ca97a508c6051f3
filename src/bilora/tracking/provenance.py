"""The provenance of a run: commit, uncommitted changes, machine, package versions, memory."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from bilora.storage import sha256_bytes

PACKAGES = ("bilora", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "numpy")


def _git(root: Path, *arguments: str) -> bytes | None:
    try:
        finished = subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return finished.stdout


def commit(root: Path) -> str:
    """Return the current commit of the checkout at `root`, or `unknown` outside a repository."""
    head = _git(root, "rev-parse", "HEAD")
    return head.decode().strip() if head else "unknown"


def dirty_diff_sha256(root: Path) -> str:
    """Return the SHA-256 of all uncommitted changes to tracked files at `root`; empty without changes."""
    diff = _git(root, "diff", "HEAD", "--binary")
    return sha256_bytes(diff) if diff else ""


def hardware() -> dict[str, str]:
    """Return the machine's system, processor, cores, memory and GPU."""
    import torch

    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory_gib": f"{pages / 2**30:.0f}",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that influence results."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}


def peak_memory_bytes() -> int:
    """Return this process's peak memory: allocated on the GPU if there is one, else resident."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
