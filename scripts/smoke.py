"""Run the pipeline on the smoke profile in a temporary copy. The gate may refuse; no other step may fail."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from bilora.errors import ExitCode
from bilora.tracking.checkout import copy_checkout

ROOT = Path(__file__).resolve().parent.parent
GATE_REFUSED = {ExitCode.REGRESSED, ExitCode.INCONCLUSIVE}


def main() -> int:
    """Run the pipeline; return 0 if the gate gave a verdict."""
    with tempfile.TemporaryDirectory(prefix="bilora-smoke-") as name:
        folder = Path(name)
        copy_checkout(ROOT, folder)
        if code := subprocess.run(["dvc", "repro", "evaluate"], cwd=folder, check=False).returncode:
            print(f"smoke: DVC ended with {code}; its last lines name the stage", file=sys.stderr)
            return ExitCode.INFRASTRUCTURE
        verdict = subprocess.run(["bilora", "benchmark"], cwd=folder, check=False).returncode
        complete = all((folder / path).is_file() for path in ("benchmarking/results.json", "report.html"))
    if not complete or verdict not in {0, *GATE_REFUSED}:
        print(f"smoke: the gate gave no verdict (exit code {verdict})", file=sys.stderr)
        return verdict if verdict not in {ExitCode.OK, *GATE_REFUSED} else ExitCode.INFRASTRUCTURE
    print(
        "smoke: the gate gave a verdict"
        + ("" if verdict == 0 else ": it refused the adapters, as expected of such a small model")
    )
    return 0


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # no arguments
    raise SystemExit(main())
