"""Copies of a checkout, in which the whole pipeline can run without touching the original."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bilora.results import Baseline, write_baseline

_SMOKE = Path("profiles/smoke.yaml")
_BASELINE = Path("benchmarking/baseline.json")
_AUTHOR = ("-c", "user.name=smoke", "-c", "user.email=smoke@localhost", "-c", "commit.gpgsign=false")


def committable_files(root: Path) -> list[str]:
    """Return every file that git tracks in `root`, or would track: all that it does not ignore, sorted.

    Raises:
        CalledProcessError: `root` is no git checkout.
    """
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout.decode()
    return [name for name in sorted(set(listing.split("\0"))) if name and (root / name).is_file()]


def copy_checkout(root: Path, destination: Path, params: Path = _SMOKE) -> None:
    """Copy what git tracks in `root`, or would track, into a git repository of its own.

    Args:
        params: the file that becomes the copy's params.yaml, from `root`.

    The copy's baseline is empty: what was promoted in `root` says nothing about other params.
    """
    # 1) copy the files
    for name in committable_files(root):
        (destination / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, destination / name)
    # 2) put the params into use
    shutil.copyfile(root / params, destination / "params.yaml")
    write_baseline(destination / _BASELINE, Baseline())
    # 3) commit them, for run records name the commit
    for command in (["init", "-q"], ["add", "-A"], [*_AUTHOR, "commit", "-qm", "smoke"]):
        subprocess.run(["git", *command], cwd=destination, check=True)
