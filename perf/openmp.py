"""Decode speed with and without an idle OpenMP pool in the thread that waits for the completions.

    python perf/openmp.py [--base models/smoke] [--rounds 7] [--tokens 100]

It decodes with the base in float32, at batch sizes 1 and 8, in interleaved rounds, and prints medians of tokens per
second and of voluntary context switches per step.
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

PROMPT = "Write a function that takes a list of numbers and returns the sum of the even ones. "


def keep_pool() -> None:
    """Run an operation in this thread, so that its OpenMP pool is idle beside the engine's."""
    torch.ones(2**22).sin()


def measure_decode(engine: TorchEngine, batch_size: int, tokens: int) -> tuple[float, float]:
    """Return tokens per second, and voluntary context switches per step."""
    request = Request("r", (), SamplingParams(max_tokens=tokens, ignore_eos=True), text=PROMPT)
    switches, began = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw, time.perf_counter()
    completions = engine.generate("base", [request] * batch_size)
    seconds = time.perf_counter() - began
    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - switches
    return sum(completion.output_tokens or 0 for completion in completions) / seconds, switches / tokens


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="models/smoke")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=100)
    options = parser.parse_args()
    engine = TorchEngine(load_for_inference(FolderBase.at(options.base)), {}, batch_size=8)
    policies: dict[str, Callable[[], None]] = {"idle": keep_pool, "released": release_openmp_threads}
    rounds: dict[tuple[int, str], list[tuple[float, float]]] = defaultdict(list)
    for turn in range(1 + options.rounds):
        for batch_size in (1, 8):
            for policy, before_wait in policies.items():
                engine_module.release_openmp_threads = before_wait  # type: ignore[attr-defined]  # replaced, not called
                result = measure_decode(engine, batch_size, options.tokens)
                if turn:  # the first round warms up
                    rounds[batch_size, policy].append(result)
    print(f"{torch.get_num_threads()} threads, {options.rounds} rounds\n")
    print("| batch size | OpenMP pool | tokens/s | of idle | context switches per step |\n|---:|---|---:|---:|---:|")
    for (batch_size, policy), results in rounds.items():
        speed, switches = (statistics.median(column) for column in zip(*results, strict=True))
        pairs = zip(results, rounds[batch_size, "idle"], strict=True)
        ratio = statistics.median(rate / idle_rate for (rate, _), (idle_rate, _) in pairs)
        print(f"| {batch_size} | {policy} | {speed:.0f} | {ratio:.2f} | {switches:.1f} |")


if __name__ == "__main__":
    main()
