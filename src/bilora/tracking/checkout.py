"""Copy a checkout, to run the whole pipeline without touching the original."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bilora.results import Baseline, write_baseline

_SMOKE = Path("profiles/smoke.yaml")
_BASELINE = Path("benchmarking/baseline.json")
_AUTHOR = ("-c", "user.name=smoke", "-c", "user.email=smoke@localhost", "-c", "commit.gpgsign=false")


def committable_files(root: Path) -> list[str]:
    """Return the sorted paths of all files in `root` that git does not ignore.

    Raises:
        CalledProcessError: `root` is not a git checkout.
    """
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout.decode()
    return [name for name in sorted(set(listing.split("\0"))) if name and (root / name).is_file()]


def copy_checkout(root: Path, destination: Path, params: Path = _SMOKE) -> None:
    """Copy all files in `root` that git does not ignore into a new git repository, and commit them.

    The copy's baseline is empty, since it would not be comparable under other params.

    Args:
        params: the file that becomes the copy's params.yaml, relative to `root`.
    """
    # 1) Copy the files.
    for name in committable_files(root):
        (destination / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, destination / name)
    # 2) Replace params.yaml and empty the baseline.
    shutil.copyfile(root / params, destination / "params.yaml")
    write_baseline(destination / _BASELINE, Baseline())
    # 3) Commit, because run records name the commit.
    for command in (["init", "-q"], ["add", "-A"], [*_AUTHOR, "commit", "-qm", "smoke"]):
        subprocess.run(["git", *command], cwd=destination, check=True)
