"""Decode speed with and without an idle OpenMP pool in the thread that waits for the answer.

    python perf/openmp.py [--base models/smoke] [--rounds 7] [--tokens 100]

The base in float32, at batch sizes 1 and 8, in interleaved rounds. It prints medians of tokens per second
and of voluntary context switches per step.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import torch

from bilora.bases.kinds.folder import FolderBase
from bilora.inference import engine as engine_module
from bilora.inference.openmp import release_openmp_threads
from bilora.inference.torch.engine import TorchEngine
from bilora.inference.torch.loading import load_for_inference
from bilora.requests import Request, SamplingParams

TEXT = "Write a function that takes a list of numbers and returns the sum of the even ones. "


def keep_pool() -> None:
    """Compute something in this thread, whose pool then waits beside the engine's."""
    torch.ones(2**22).sin()


def measured(engine: TorchEngine, rows: int, tokens: int) -> tuple[float, float]:
    """Return tokens per second, and voluntary context switches per step."""
    slept, began = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw, time.perf_counter()
    made = engine.generate(
        "base", [Request("r", (), SamplingParams(max_tokens=tokens, ignore_eos=True), text=TEXT)] * rows
    )
    seconds = time.perf_counter() - began
    slept = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - slept
    return sum(one.output_tokens or 0 for one in made) / seconds, slept / tokens


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="models/smoke")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=100)
    chosen = parser.parse_args()
    engine = TorchEngine(load_for_inference(FolderBase.at(chosen.base)), {}, batch_size=8)
    policies: dict[str, Callable[[], None]] = {"kept": keep_pool, "released": release_openmp_threads}
    found: dict[tuple[int, str], list[tuple[float, float]]] = defaultdict(list)
    for turn in range(1 + chosen.rounds):
        for rows in (1, 8):
            for policy, what in policies.items():
                engine_module.release_openmp_threads = what  # type: ignore[attr-defined]  # replaced, not called
                pair = measured(engine, rows, chosen.tokens)
                if turn:  # the first one warms up
                    found[rows, policy].append(pair)
    print(f"{torch.get_num_threads()} threads, {chosen.rounds} rounds\n")
    print("| batch size | OpenMP pool | tokens/s | of kept | sleeps per step |\n|---:|---|---:|---:|---:|")
    for (rows, policy), pairs in found.items():
        speed, sleeps = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(own / kept for (own, _), (kept, _) in zip(pairs, found[rows, "kept"], strict=True))
        print(f"| {rows} | {policy} | {speed:.0f} | {ratio:.2f} | {sleeps:.1f} |")


if __name__ == "__main__":
    main()
