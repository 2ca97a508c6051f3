"""Run the whole loop on the smoke profile in a temporary copy; the gate may refuse, nothing else may fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bilora.errors import ExitCode
from bilora.results import Baseline, write_baseline

ROOT = Path(__file__).resolve().parent.parent
GATE_SAID_NO = {ExitCode.REGRESSED, ExitCode.INCONCLUSIVE}
SMOKE = ROOT / "profiles" / "smoke.yaml"


def copy_checkout(destination: Path, params: Path = SMOKE) -> None:
    """Copy what git tracks, or would, into a repository of its own, with these params in use."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, destination / name)
    shutil.copyfile(params, destination / "params.yaml")
    # What was promoted here says nothing of this profile.
    write_baseline(destination / "benchmarking" / "baseline.json", Baseline())
    who = ["-c", "user.name=smoke", "-c", "user.email=smoke@localhost", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "smoke"]):
        subprocess.run(["git", *command], cwd=destination, check=True)


def main() -> int:
    """Return 0 if the loop ran to a verdict."""
    with tempfile.TemporaryDirectory(prefix="bilora-smoke-") as name:
        folder = Path(name)
        copy_checkout(folder)
        if code := subprocess.run(["dvc", "repro", "evaluate"], cwd=folder, check=False).returncode:
            print(f"smoke: DVC ended with {code}; its last lines name the stage", file=sys.stderr)
            return ExitCode.INFRASTRUCTURE
        verdict = subprocess.run(["bilora", "benchmark"], cwd=folder, check=False).returncode
        whole = all((folder / path).is_file() for path in ("benchmarking/results.json", "report.html"))
    if not whole or verdict not in {0, *GATE_SAID_NO}:
        print(f"smoke: the loop did not reach a verdict (exit {verdict})", file=sys.stderr)
        return verdict if verdict not in {ExitCode.OK, *GATE_SAID_NO} else ExitCode.INFRASTRUCTURE
    print(
        "smoke: the loop ran to a verdict"
        + ("" if verdict == 0 else "; the gate refused, as it should for such a model")
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
