"""Throughput of a batch whose sequences use different adapters.

    python perf/engines.py [--shape params|half-billion|phi3-mini] [--engines torch llamacpp]
                            [--rounds 7] [--tokens 48]

Rounds are interleaved, so that a slowdown of the machine affects all runs alike; it prints medians and ratios.
`params` is the base of params.yaml; llama.cpp reads its GGUF file unless --quantization names another. The other shapes
are those of Qwen2.5-0.5B and Phi-3-mini, with random bf16 weights. Batch size 1: perf/inference.py.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import torch
from random_bases import ATTENTION, MLP, PARAMS_SHAPE, SHAPES, quantization_of, select_base, write_random_adapter

from bilora.bases.base import Base
from bilora.inference.engines import LocalEngine
from bilora.params import Quantization
from bilora.records import Message
from bilora.requests import Request, SamplingParams

PROMPT = "Write a function that takes a list of numbers and returns the sum of the even ones. " * 3
SYSTEMS = ("base", "codegen", "docstring")


def load_engines(
    name: str, base: Base, folders: dict[str, Path], cache_dir: Path, quantization: Quantization | None
) -> list[LocalEngine]:
    """Return the engine without adapters and the engine with adapters."""
    if name == "llamacpp":
        from bilora.inference.llamacpp.engine import LlamaEngine

        return [LlamaEngine(base, quantization, adapters, batch_size=8, cache=cache_dir) for adapters in ({}, folders)]
    from bilora.inference.torch.engine import TorchEngine
    from bilora.inference.torch.loading import load_for_inference

    loaded = load_for_inference(base)
    return [TorchEngine(loaded, adapters, batch_size=8) for adapters in ({}, folders)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=[PARAMS_SHAPE, *SHAPES], default=PARAMS_SHAPE)
    parser.add_argument("--engines", choices=["torch", "llamacpp"], nargs="+", default=["torch"])
    parser.add_argument("--quantization", choices=get_args(Quantization))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=48)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        base = select_base(options.shape, folder / "base")
        targets = {"codegen": ATTENTION, "docstring": MLP}
        folders = {
            name: write_random_adapter(base, folder / name, layers, seed=seed)
            for seed, (name, layers) in enumerate(targets.items())
        }
        for name in options.engines:
            quantization = quantization_of(options.shape, options.quantization)
            base_engine, engine = load_engines(name, base, folders, folder / "gguf", quantization)
            print(f"{options.shape}, {name}, {torch.get_num_threads()} threads, {options.rounds} rounds")
            measure(engine, base_engine, options)


def measure(engine: LocalEngine, base_engine: LocalEngine, options: argparse.Namespace) -> None:
    """Run the rounds of one engine, and of the same engine without adapters; print medians and ratios."""
    request = Request(
        "r", (Message(role="user", content=PROMPT),), SamplingParams(max_tokens=options.tokens, ignore_eos=True)
    )
    mixed = [(SYSTEMS[number % 3], request) for number in range(8)]
    one_token = Request("r", (Message(role="user", content="x"),), SamplingParams(max_tokens=1))

    def one_by_one() -> None:
        for system, request in mixed:
            engine.generate(system, [request])

    def same_adapter() -> None:
        for _ in range(8):
            engine.generate("codegen", [one_token])

    def alternate_adapters() -> None:
        for number in range(8):
            engine.generate(SYSTEMS[1 + number % 2], [one_token])

    runs: dict[str, Callable[[], object]] = {
        "8 rows, three systems": lambda: engine.generate_mixed(mixed),
        "8 rows, codegen": lambda: engine.generate("codegen", [request] * 8),
        "8 rows, docstring": lambda: engine.generate("docstring", [request] * 8),
        "8 rows, base": lambda: engine.generate("base", [request] * 8),
        "8 rows, base, no adapters loaded": lambda: base_engine.generate("base", [request] * 8),
        "one by one, three systems": one_by_one,
        "8 x 1 token, same adapter": same_adapter,
        "8 x 1 token, alternating": alternate_adapters,
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(options.rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(times) for name, times in seconds.items()}

    for name, times in seconds.items():
        tokens = 8 if "1 token" in name else 8 * options.tokens
        print(f"  {name:34s} {medians[name]:7.3f} s [{min(times):.3f}, {max(times):.3f}]", end="")
        print(f"  {tokens / medians[name]:7.1f} tokens/s")
    mixed_s = medians["8 rows, three systems"]
    single_s = max(medians["8 rows, codegen"], medians["8 rows, docstring"])
    base_ratio = statistics.median(
        without / loaded
        for loaded, without in zip(seconds["8 rows, base"], seconds["8 rows, base, no adapters loaded"], strict=True)
    )
    switch_s = (medians["8 x 1 token, alternating"] - medians["8 x 1 token, same adapter"]) / 8
    print(f"  three systems / one adapter (the slower): {single_s / mixed_s:.2f}    (target: at least 0.9)")
    print(f"  three systems / one by one: {medians['one by one, three systems'] / mixed_s:.2f}    (target: at least 3)")
    print(f"  base with adapters loaded / without: {base_ratio:.3f}    (target: at least 0.99)")
    print(f"  switching: {switch_s * 1000:.2f} ms    (target: at most 10)")


if __name__ == "__main__":
    main()
