"""The command doctor."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from bilora.errors import BiloraError, ExitCode

if TYPE_CHECKING:
    from bilora.workspace import Workspace

MIN_FREE_GIB = 2
KEYS = ("GROQ_API_KEY", "HF_TOKEN")


class Fault(Exception):
    """A failed check; the message says what to do."""


def _workspace() -> Workspace:
    from bilora.workspace import Workspace

    return Workspace(Path())


def _python() -> str:
    return sys.version.split()[0]


def _packages() -> str:
    from importlib import metadata

    from bilora.textfiles import read_text

    mismatches = []
    lines = [line.split("#")[0].strip() for line in read_text(_workspace().lock).splitlines()]
    pins = dict(line.split("==", 1) for line in lines if "==" in line)
    for name, version in pins.items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed = "absent"
        if installed.partition("+")[0] != version:
            mismatches.append(f"{name} is {installed}, not {version}")
    if mismatches:
        raise Fault(f"{'; '.join(mismatches[:5])}; run `make install`")
    return f"{len(pins)} packages at their pinned versions"


def _repository() -> str:
    from bilora.tracking.provenance import commit

    if not Path(".dvc").is_dir() or not Path("dvc.yaml").is_file():
        raise Fault("this folder has no pipeline; run this command in a checkout of BiLoRA")
    if shutil.which("dvc") is None:
        raise Fault("dvc is not on the PATH; activate .venv, or use make")
    return f"commit {commit(_workspace().root)[:12]}"


def _params() -> str:
    from bilora.errors import BiloraError

    try:
        params = _workspace().params
    except BiloraError as error:
        raise Fault(str(error)) from None
    return f"profile {params.profile}, tasks {', '.join(params.tasks)}"


def _base() -> str:
    from bilora.bases.prompt import template_remarks
    from bilora.errors import BiloraError

    base = _workspace().base()
    try:
        name = f"{base.id} at {base.identity[:12]}"
        remarks = [] if base.download_note else template_remarks(base.tokenizer())
        return " ".join([f"{name}." if remarks else name, *remarks])
    except BiloraError as error:
        raise Fault(str(error)) from None


def _guards() -> str:
    from bilora.guards import load_guard

    guards = [load_guard(name) for name in _workspace().params.benchmark.guards]
    for guard in guards:
        guard.rows()
    return ", ".join(guard.title for guard in guards) or "none in params.yaml"


def _sandbox() -> str:
    from bilora.records import Program

    good = Program(code="def f(x):\n    return x + 1\n", tests=("assert f(1) == 2",))
    bad = Program(code="import os\nos._exit(0)\n", tests=("assert f(1) == 2",))
    with _workspace().sandbox() as sandbox:
        layers = sandbox.layers()
        passed, forged = sandbox.run_many([good, bad])
    if passed.status != "passed":
        raise Fault(f"a correct program has the status {passed.status} ({passed.detail}); is /tmp writable?")
    if forged.status == "passed":
        raise Fault("a program that only exits passed its test; do not trust any pass rate from this machine")
    off = "".join(f"; {name} is off: {why}" for name, why in layers.off.items())
    return f"{layers}; each was tested{off}"


def _disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    if free < MIN_FREE_GIB:
        raise Fault(f"{free:.1f} GiB free; at least {MIN_FREE_GIB} GiB are needed")
    return f"{free:.0f} GiB free"


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def _keys() -> str:
    from bilora.api_keys import environment_key
    from bilora.errors import BadData

    try:
        return ", ".join(f"{name} {'set' if environment_key(name) else 'not set'}" for name in KEYS)
    except BadData as error:
        raise Fault(str(error)) from None


CHECKS: dict[str, Callable[[], str]] = {
    "python": _python,
    "packages": _packages,
    "repository": _repository,
    "params": _params,
    "base": _base,
    "guards": _guards,
    "sandbox": _sandbox,
    "disk": _disk,
    "device": _device,
    "keys": _keys,
}


def doctor() -> None:
    """Check the requirements of a run, and report each fault with its fix; exit 4 if there is one."""
    faults = 0
    for name, check in CHECKS.items():
        try:
            print(f"ok     {name}: {check()}")
        except Fault as fault:
            faults += 1
            print(f"FAULT  {name}: {fault}")
        except BiloraError as error:
            faults += 1
            print(f"FAULT  {name}: {error}")
        except Exception as error:  # a broken check must not hide the others' results
            faults += 1
            print(f"FAULT  {name}: the check itself failed: {type(error).__name__}: {error}")
    raise typer.Exit(ExitCode.NOT_READY if faults else ExitCode.OK)
