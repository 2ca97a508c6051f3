"""Copies of the repository on the smoke profile, and commands that run in them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from bilora.tracking.checkout import copy_checkout

ROOT = Path(__file__).resolve().parents[2]

REMOVED_VARIABLES = ("_TOKEN", "_API_KEY", "PYTHONDONTWRITEBYTECODE")
"""Ends of variable names: secrets, and the variable that makes every command compile its libraries again."""

Shell = Callable[..., "subprocess.CompletedProcess[str]"]


def environment_of(folder: Path) -> dict[str, str]:
    """Return the environment of commands in a checkout: they import the checkout's sources, and see no secrets."""
    return {
        **{key: value for key, value in os.environ.items() if not key.endswith(REMOVED_VARIABLES)},
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]),
        "PYTHONPATH": str(folder / "src"),
        "TOKENIZERS_PARALLELISM": "false",
    }


def load_script(name: str) -> ModuleType:
    """Import scripts/NAME.py, which is in no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shell_in(folder: Path) -> Shell:
    """Return a function that runs commands in `folder`."""

    def run(*command: str, check: bool = True, **extra: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**environment_of(folder), **extra},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    return run


def smoke_checkout(folder: Path) -> Path:
    """Copy the repository into `folder`, with the smoke profile as params.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    copy_checkout(ROOT, folder)
    return folder


def change_task(folder: Path, name: str, change: Callable[[Any], object]) -> None:
    """Change one task's entry in a checkout's params.yaml."""
    path = folder / "params.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(document["tasks"][name])
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
