"""Check in a subprocess that this build of llama.cpp works with this CPU's matrix unit (AMX).

For AMX llama.cpp repacks quantized weights, which is faster. But GCC 12.2 treats only 8 of the 64 bytes of a tile
configuration as used (in `_tile_loadconfig`) and removes the code that fills the others: such a build crashes at the
first product, and the process with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bilora.inference.llamacpp.bindings import LlamaModel, library
from bilora.protocols import ProgressBars
from bilora.storage import read_json, sha256_json, write_json

TRIAL = "import sys; from bilora.inference.llamacpp.amx_check import run_trial; run_trial(sys.argv[1])"
"""The program of the subprocess."""
_TRIAL_TOKENS = 64
"""Enough tokens for the matrix products of a prefill; a pass of one token has those of decoding."""


def amx_works(path: Path, cache: Path, progress_bars: ProgressBars) -> bool:
    """Return whether the GGUF file `path` can be used with weights repacked for this CPU.

    Each build of the library is tried once per file; `progress_bars` show the trial, `cache` stores its outcome.
    """
    llama = library()
    if b"AMX_INT8 = 1" not in llama.llama_print_system_info():
        return True
    files = sorted(Path(str(llama.__file__)).parent.glob("lib/*"))
    build = sha256_json([[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files])
    outcome_file = cache / f"trial-{path.stem}.json"
    outcome = read_json(outcome_file) if outcome_file.exists() else {"build": ""}
    if outcome["build"] != build:
        command = [sys.executable, "-c", TRIAL, str(path)]
        environment = {"PYTHONPATH": os.pathsep.join(sys.path)}  # without this process's API keys
        with progress_bars("Trying llama.cpp on this CPU", 1) as progress:
            trial = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            progress(1)
        outcome = {"build": build, "survived": trial.returncode == 0}
        write_json(outcome_file, outcome)
    return bool(outcome["survived"])


def run_trial(path: str) -> None:
    """Run a prefill and one decoding step of the model."""
    model = LlamaModel(
        Path(path), max_sequences=1, kv_capacity=2 * _TRIAL_TOKENS, threads=1, kv_float32=False, repack=True
    )
    context = model.context()
    context.logits([(position % 2, position, 0) for position in range(_TRIAL_TOKENS)], 1)
    context.logits([(0, _TRIAL_TOKENS, 0)], 1)
