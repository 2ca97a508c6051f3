"""Throughput of a batch whose sequences use different adapters.

    python perf/engines.py [--shape params|half-billion|phi3-mini] [--engines torch llamacpp]
                            [--rounds 7] [--tokens 48]

Rounds are interleaved, so that a slowdown of the machine affects all of them alike; it prints medians and ratios.
`params` is the base of params.yaml, from its own GGUF file in llama.cpp unless --quantization names another; the other
shapes are those of Qwen2.5-0.5B and Phi-3-mini, with random bf16 weights. Batch size 1: perf/inference.py.
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
from random_bases import ATTENTION, MLP, OWN, SHAPES, adapter_for, base_of, quantization_of

from bilora.bases.base import Base
from bilora.inference.engines import LocalEngine
from bilora.params import Quantization
from bilora.records import Message
from bilora.requests import Request, SamplingParams

PROMPT = "Write a function that takes a list of numbers and returns the sum of the even ones. " * 3
SYSTEMS = ("base", "codegen", "docstring")


def engines(
    name: str, base: Base, folders: dict[str, Path], place: Path, quantization: Quantization | None
) -> list[LocalEngine]:
    """Return the engine without adapters and the engine with adapters."""
    if name == "llamacpp":
        from bilora.inference.llamacpp.engine import LlamaEngine

        return [LlamaEngine(base, quantization, put, batch_size=8, cache=place) for put in ({}, folders)]
    from bilora.inference.torch.engine import TorchEngine
    from bilora.inference.torch.loading import load_for_inference

    loaded = load_for_inference(base)
    return [TorchEngine(loaded, put, batch_size=8) for put in ({}, folders)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=[OWN, *SHAPES], default=OWN)
    parser.add_argument("--engines", choices=["torch", "llamacpp"], nargs="+", default=["torch"])
    parser.add_argument("--quantization", choices=get_args(Quantization))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=48)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        base = base_of(options.shape, place / "base")
        kinds = {"codegen": ATTENTION, "docstring": MLP}
        folders = {
            name: adapter_for(base, place / name, kind, seed=seed) for seed, (name, kind) in enumerate(kinds.items())
        }
        for name in options.engines:
            quantization = quantization_of(options.shape, options.quantization)
            bare, engine = engines(name, base, folders, place / "gguf", quantization)
            print(f"{options.shape}, {name}, {torch.get_num_threads()} threads, {options.rounds} rounds")
            measure(engine, bare, options)


def measure(engine: LocalEngine, bare: LocalEngine, options: argparse.Namespace) -> None:
    """Run the rounds of one engine and print medians and ratios."""
    request = Request(
        "r", (Message(role="user", content=PROMPT),), SamplingParams(max_tokens=options.tokens, ignore_eos=True)
    )
    mixed = [(SYSTEMS[place % 3], request) for place in range(8)]
    token = Request("r", (Message(role="user", content="x"),), SamplingParams(max_tokens=1))

    def one_by_one() -> None:
        for system, request in mixed:
            engine.generate(system, [request])

    def staying() -> None:
        for _ in range(8):
            engine.generate("codegen", [token])

    def switching() -> None:
        for place in range(8):
            engine.generate(SYSTEMS[1 + place % 2], [token])

    runs: dict[str, Callable[[], object]] = {
        "8 rows, three systems": lambda: engine.generate_mixed(mixed),
        "8 rows, codegen": lambda: engine.generate("codegen", [request] * 8),
        "8 rows, docstring": lambda: engine.generate("docstring", [request] * 8),
        "8 rows, base": lambda: engine.generate("base", [request] * 8),
        "8 rows, base, no adapters loaded": lambda: bare.generate("base", [request] * 8),
        "one by one, three systems": one_by_one,
        "8 x 1 token, same adapter": staying,
        "8 x 1 token, adapters in turn": switching,
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(options.rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    middle = {name: statistics.median(found) for name, found in seconds.items()}

    for name, found in seconds.items():
        made = 8 if "1 token" in name else 8 * options.tokens
        print(f"  {name:34s} {middle[name]:7.3f} s [{min(found):.3f}, {max(found):.3f}]", end="")
        print(f"  {made / middle[name]:7.1f} tokens/s")
    three, one = middle["8 rows, three systems"], max(middle["8 rows, codegen"], middle["8 rows, docstring"])
    base_ratio = statistics.median(
        without / having
        for having, without in zip(seconds["8 rows, base"], seconds["8 rows, base, no adapters loaded"], strict=True)
    )
    switch = (middle["8 x 1 token, adapters in turn"] - middle["8 x 1 token, same adapter"]) / 8
    print(f"  three systems / one adapter (the slower): {one / three:.2f}    (wanted: at least 0.9)")
    print(f"  three systems / one by one: {middle['one by one, three systems'] / three:.2f}    (wanted: at least 3)")
    print(f"  base with adapters loaded / without: {base_ratio:.3f}    (wanted: at least 0.99)")
    print(f"  switching: {switch * 1000:.2f} ms    (wanted: at most 10)")


if __name__ == "__main__":
    main()
