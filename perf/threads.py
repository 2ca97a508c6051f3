"""Decode speed beside a busy process: one thread per free core, one thread, and one thread per core.

    python perf/threads.py --base FOLDER [--rounds 5] [--tokens 100]

It decodes eight requests at a time, alone and beside one process of equal priority that never waits, in interleaved
rounds, and prints medians of tokens per second.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable

import torch

from bilora.bases.kinds.folder import FolderBase
from bilora.inference.free_cores import FreeCores
from bilora.inference.torch.engine import TorchEngine
from bilora.inference.torch.loading import load_for_inference
from bilora.requests import Request, SamplingParams

BATCH_SIZE = 8
PROMPT = "Write a function that takes a list of numbers and returns the sum of the even ones. "


def measure_decode(engine: TorchEngine, tokens: int, threads: Callable[[], int]) -> float:
    """Return tokens per second."""
    engine.set_thread_callback(threads)
    request = Request("r", (), SamplingParams(max_tokens=tokens, ignore_eos=True), text=PROMPT)
    began = time.perf_counter()
    engine.generate("base", [request] * BATCH_SIZE)
    return BATCH_SIZE * tokens / (time.perf_counter() - began)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="a model folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=100)
    options = parser.parse_args()
    engine = TorchEngine(load_for_inference(FolderBase.at(options.base, dtype="auto")), {}, batch_size=BATCH_SIZE)
    cores = torch.get_num_threads()
    policies: dict[str, Callable[[], int]] = {
        "free cores": FreeCores(cores).count,
        "1": lambda: 1,
        str(cores): lambda: cores,
    }
    speeds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for turn in range(1 + options.rounds):
        for load in ("alone", "beside"):
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if load == "beside" else None
            try:
                for policy, count_threads in policies.items():
                    speed = measure_decode(engine, options.tokens, count_threads)
                    if turn:  # the first round warms up
                        speeds[load, policy].append(speed)
            finally:
                if busy:
                    busy.kill()
                    busy.wait()
    print("| threads | alone | beside a busy process |\n|---|---:|---:|")
    for policy in policies:
        alone, beside = (statistics.median(speeds[load, policy]) for load in ("alone", "beside"))
        print(f"| {policy} | {alone:.0f} | {beside:.0f} |")


if __name__ == "__main__":
    main()
