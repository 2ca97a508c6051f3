"""Decode speed beside a busy process: as many threads as cores are free, one thread, and all.

    python perf/threads.py --base FOLDER [--rounds 5] [--tokens 100]

Eight requests at a time, alone and beside one process of equal priority that never waits, in interleaved rounds. It
prints medians of tokens per second.
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

ROWS = 8
TEXT = "Write a function that takes a list of numbers and returns the sum of the even ones. "


def measured(engine: TorchEngine, tokens: int, threads: Callable[[], int]) -> float:
    """Return tokens per second."""
    engine.use_threads(threads)
    request = Request("r", (), SamplingParams(max_tokens=tokens, ignore_eos=True), text=TEXT)
    began = time.perf_counter()
    engine.generate("base", [request] * ROWS)
    return ROWS * tokens / (time.perf_counter() - began)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="a model folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=100)
    chosen = parser.parse_args()
    engine = TorchEngine(load_for_inference(FolderBase.at(chosen.base, dtype="auto")), {}, batch_size=ROWS)
    most = torch.get_num_threads()
    ways: dict[str, Callable[[], int]] = {"free cores": FreeCores(most).count, "1": lambda: 1, str(most): lambda: most}
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for turn in range(1 + chosen.rounds):
        for place in ("alone", "beside"):
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if place == "beside" else None
            try:
                for threads, count in ways.items():
                    speed = measured(engine, chosen.tokens, count)
                    if turn:  # the first round warms up
                        found[place, threads].append(speed)
            finally:
                if busy:
                    busy.kill()
                    busy.wait()
    print("| threads | alone | beside a busy process |\n|---|---:|---:|")
    for threads in ways:
        alone, beside = (statistics.median(found[place, threads]) for place in ("alone", "beside"))
        print(f"| {threads} | {alone:.0f} | {beside:.0f} |")


if __name__ == "__main__":
    main()
