"""Whether this build of llama.cpp survives this CPU's matrix unit: tried on the model, in a process of its own.

For Intel's AMX llama.cpp lays quantised weights out anew, and multiplies them faster. But GCC 12.2 takes only 8 of the
64 bytes of a tile configuration for used (its `_tile_loadconfig`) and drops what fills the others: what it has built
dies at the first product, and the process with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bilora.inference.llamacpp.bindings import Model, library
from bilora.protocols import ProgressBars
from bilora.storage import read_json, sha256_json, write_json

TOKENS = 64
"""A pass of so many takes the products of a prompt, one more those of an answer."""
TRIAL = "import sys; from bilora.inference.llamacpp.amx_check import answer; answer(sys.argv[1])"


def survives(path: Path, shown: ProgressBars) -> bool:
    """Whether the model in the GGUF file `path` can be multiplied from weights laid out for this CPU.

    It is tried once for a build of the library, which `shown` shows; what came out is kept beside the file.
    """
    llama = library()
    if b"AMX_INT8 = 1" not in llama.llama_print_system_info():
        return True
    files = sorted(Path(llama.__file__).parent.glob("lib/*"))
    build = sha256_json([[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files])
    kept = path.with_name(f"trial-{path.stem}.json")
    found = read_json(kept) if kept.exists() else {"build": ""}
    if found["build"] != build:
        command = [sys.executable, "-c", TRIAL, str(path)]
        alone = {"PYTHONPATH": os.pathsep.join(sys.path)}  # and no key of this process
        with shown("Trying llama.cpp on this CPU", 1) as progress:
            tried = subprocess.run(command, env=alone, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            progress(1)
        found = {"build": build, "survived": tried.returncode == 0}
        write_json(kept, found)
    return bool(found["survived"])


def answer(path: str) -> None:
    """Read a prompt and begin its answer."""
    context = Model(Path(path), rows=1, cells=2 * TOKENS, threads=1, wide=False, laid_out=True).context()
    context.logits([(place % 2, place, 0) for place in range(TOKENS)], 1)
    context.logits([(0, TOKENS, 0)], 1)
