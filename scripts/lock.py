"""Write requirements.txt, which pins every package, and hf_space/requirements.txt, the part that the page needs.

`make lock` runs this. The versions in requirements.txt stay where the ranges of pyproject.toml allow them;
`python scripts/lock.py --upgrade` takes the newest.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK, SPACE = Path("requirements.txt"), Path("hf_space/requirements.txt")
PYTHON = "3.11"
LOCKED_EXTRA, SPACE_EXTRA = "dev", "app"
CUDA = ("cuda-", "nvidia-", "triton")
"""Packages of torch's CUDA build, which pins them exactly; its CPU build has none of them."""
LOCK_HEADER = f"""\
# Every package at the version that this project is tested with: pyproject.toml's dependencies, its extra
# `{LOCKED_EXTRA}`, and all that they require, for Python {PYTHON} on Linux. Written by `make lock`.
"""
SPACE_HEADER = f"""\
# The dependencies and the extra `{SPACE_EXTRA}` of pyproject.toml, at the versions of requirements.txt.
# Written by `make lock`.
"""


def main() -> int:
    """Resolve the ranges of pyproject.toml and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions")
    lock = resolve(upgrade=parser.parse_args().upgrade)
    (ROOT / LOCK).write_text(lock, encoding="utf-8")
    (ROOT / SPACE).write_text(space_requirements(read_project(), lock), encoding="utf-8")
    print(f"lock: {len(pins(lock))} packages in {LOCK}, and those of the page in {SPACE}")
    return 0


def read_project() -> dict[str, list[str]]:
    """Return the requirements of each extra of pyproject.toml; those of the package itself have the name ""."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


def resolve(*, upgrade: bool) -> str:
    """Return the text of requirements.txt; uv starts from the versions that are there, unless `upgrade` is set."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--extra", LOCKED_EXTRA, "--quiet"]
    command += ["--python-version", PYTHON, "--no-header", "--no-annotate", "--output-file", str(LOCK)]
    command += ["--upgrade"] if upgrade else []
    subprocess.run(command, cwd=ROOT, check=True)
    lines = (ROOT / LOCK).read_text(encoding="utf-8").splitlines()
    return LOCK_HEADER + "".join(f"{line}\n" for line in lines if not line.startswith(("#", *CUDA)))


def space_requirements(declared: dict[str, list[str]], lock: str) -> str:
    """Return the text of hf_space/requirements.txt.

    Args:
        declared: as `read_project` returns them.
        lock: the text of requirements.txt.
    """
    versions = pins(lock)
    names = {requirement_name(requirement) for extra in ("", SPACE_EXTRA) for requirement in declared[extra]}
    return SPACE_HEADER + "".join(f"{name}=={versions[name]}\n" for name in sorted(names))


def pins(lock: str) -> dict[str, str]:
    """Return each pinned distribution with its version."""
    lines = [line.split("==", 1) for line in lock.splitlines() if "==" in line and not line.startswith("#")]
    return {requirement_name(name): version.strip() for name, version in lines}


def requirement_name(requirement: str) -> str:
    """Return the distribution that a requirement names, normalized."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


if __name__ == "__main__":
    raise SystemExit(main())
