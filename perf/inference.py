"""Batch size 1: decode speed of base and adapters, adapter switching and memory of each engine.

    python perf/inference.py [--shape params|half-billion|phi3-mini] [--engines peft torch llamacpp]
                              [--quantization q4_k_m] [--rounds 5] [--tokens 64] [--prompt 128] [--place FOLDER]

Each engine runs in its own process; rounds are interleaved and one engine works at a time, so a slowdown of the
machine affects all of them alike. `peft` is plain transformers with PEFT. It prints medians of the rounds, ratios to
`peft`, and the memory bound: the tokens per second at which the measured memory bandwidth reads all weights once per
token. `params` is the base of params.yaml, from its own GGUF file in llama.cpp unless --quantization names another; the
other shapes have random bf16 weights. phi3-mini needs 8 GB of disk for them, 10 GB more while llama.cpp's files are
converted, and 20 GB of memory for all three engines. Files that --place already holds are reused.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, get_args

import torch
from random_bases import ATTENTION, MLP, OWN, SHAPES, adapter_for, base_of, quantization_of

from bilora.bases.base import Base
from bilora.inference.engines import LocalEngine
from bilora.params import Quantization

SYSTEMS = ("base", "codegen", "docstring")
SWITCHES = 20
WORDS = "Write a function that takes a list of numbers and returns the sum of the even ones. "


@dataclass(frozen=True)
class Workload:
    """What a worker process loads, and how long prompt and answer are."""

    base: Base
    folders: dict[str, Path]
    cache: Path
    quantization: Quantization | None
    prompt: int
    tokens: int
    threads: int


@dataclass(frozen=True)
class LoadedEngine:
    """A loaded engine: timestamps (begin, first token, end) of one answer, time per switch, bytes of its weights."""

    answer: Callable[[str], tuple[float, float, float]]
    switch_ms: Callable[[], float]
    weights: int


def peft(workload: Workload) -> LoadedEngine:
    """Load plain transformers with PEFT: 32-bit adapters, one of them active."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(workload.base.folder(), dtype=torch.bfloat16)
    (first, folder), *others = workload.folders.items()
    model = PeftModel.from_pretrained(base, str(folder), adapter_name=first)
    for name, folder in others:
        model.load_adapter(str(folder), adapter_name=name)
    model.eval()
    ids = torch.tensor([prompt_ids(workload.base.tokenizer(), workload.prompt)])
    settings = {
        "max_new_tokens": workload.tokens,
        "min_new_tokens": workload.tokens,
        "do_sample": False,
        "pad_token_id": 0,
    }

    class Stamps:
        def __init__(self) -> None:
            self.at: list[float] = []

        def put(self, _: Any) -> None:
            self.at.append(time.perf_counter())

        def end(self) -> None:
            pass

    def answer(system: str) -> tuple[float, float, float]:
        stamps = Stamps()
        began = time.perf_counter()
        with torch.inference_mode():
            if system == "base":
                with model.disable_adapter():
                    model.generate(input_ids=ids, streamer=stamps, **settings)
            else:
                model.set_adapter(system)
                model.generate(input_ids=ids, streamer=stamps, **settings)
        return began, stamps.at[1], stamps.at[-1]  # at[0] is the prompt's

    def switch_ms() -> float:
        seconds = []
        for turn in range(SWITCHES):
            began = time.perf_counter()
            model.set_adapter(SYSTEMS[1 + turn % 2])
            seconds.append(time.perf_counter() - began)
        return 1000 * statistics.median(seconds)

    weights = sum(one.nbytes for name, one in model.named_parameters() if "lora_" not in name)
    return LoadedEngine(answer, switch_ms, weights)


def engine_of_bilora(engine: LocalEngine, workload: Workload, weights: int) -> LoadedEngine:
    """Either engine of this project. A switch costs what a token takes longer after another adapter than its own."""
    from bilora.requests import Request, SamplingParams

    tokenizer = workload.base.tokenizer()
    text = tokenizer.decode(prompt_ids(tokenizer, workload.prompt))
    whole = Request("r", (), SamplingParams(max_tokens=workload.tokens, ignore_eos=True), text=text)
    single = Request("r", (), SamplingParams(max_tokens=1), text="x")

    def answer(system: str) -> tuple[float, float, float]:
        (made,) = engine.generate(system, [whole])
        assert made.output_tokens == workload.tokens and made.first_token_s is not None
        return 0.0, made.first_token_s, made.latency_s

    def token_s(system: str) -> float:
        began = time.perf_counter()
        engine.generate(system, [single])
        return time.perf_counter() - began

    def switch_ms() -> float:
        costs = []
        for turn in range(SWITCHES):
            after_other, after_own = (token_s(SYSTEMS[1 + turn % 2]) for _ in range(2))
            costs.append(after_other - after_own)
        return 1000 * statistics.median(costs[2:])

    return LoadedEngine(answer, switch_ms, weights)


def torch_engine(workload: Workload) -> LoadedEngine:
    """Load the torch engine."""
    from bilora.inference.torch.engine import TorchEngine
    from bilora.inference.torch.loading import load_for_inference

    loaded = load_for_inference(workload.base)
    engine = TorchEngine(loaded, workload.folders, batch_size=1)
    return engine_of_bilora(engine, workload, sum(one.nbytes for one in loaded.model.parameters()))


def llamacpp(workload: Workload) -> LoadedEngine:
    """Load the llama.cpp engine."""
    from bilora.inference.llamacpp.engine import LlamaEngine

    began = time.perf_counter()
    engine = LlamaEngine(workload.base, workload.quantization, workload.folders, batch_size=1, cache=workload.cache)
    print(f"  llamacpp: {time.perf_counter() - began:.0f} s to convert (unless cached) and load; {engine.mode}")
    file = workload.base.gguf(
        workload.quantization,
        lambda _, kind: next(workload.cache.glob(f"base-*-{kind}-*")),  # it is converted by now
    )
    return engine_of_bilora(engine, workload, file.stat().st_size)


ENGINES: dict[str, Callable[[Workload], LoadedEngine]] = {"peft": peft, "torch": torch_engine, "llamacpp": llamacpp}


def prompt_ids(tokenizer: Any, count: int) -> list[int]:
    """Return `count` token ids of a prompt."""
    ids: list[int] = tokenizer(WORDS * (count // 8), add_special_tokens=False)["input_ids"]
    return ids[:count]


def worker(name: str, workload: Workload, pipe: Connection) -> None:
    """Serve the pipe's commands until it sends None."""
    torch.set_num_threads(workload.threads)
    ready = ENGINES[name](workload)
    pipe.send(ready.weights)
    while (what := pipe.recv()) is not None:
        if what == "switch":
            pipe.send(ready.switch_ms())
        elif what == "memory":
            pipe.send(memory())
        else:
            pipe.send(ready.answer(what))


def memory() -> int:
    """Return this process's resident memory in bytes, mapped files included."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("Rss:")))


def bandwidth() -> float:
    """Return the bytes per second that all cores read from memory together: the best of eight reads."""
    block = torch.ones(2**28)
    seconds = []
    for _ in range(8):
        began = time.perf_counter()
        block.sum()
        seconds.append(time.perf_counter() - began)
    return block.nbytes / min(seconds)


def peak_flops(dtype: torch.dtype) -> float:
    """Return the most floating-point operations per second that a matrix product of this type reaches here."""
    size = 1536
    left, right = (torch.rand(size, size, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=[OWN, *SHAPES], default=OWN)
    parser.add_argument("--engines", choices=list(ENGINES), nargs="+", default=list(ENGINES))
    parser.add_argument("--quantization", choices=get_args(Quantization))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--place", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        measure(options, options.place or Path(temporary))


def measure(options: Any, place: Path) -> None:
    """Start the engines, run the rounds, print the table."""
    torch.set_num_threads(options.threads)
    base = base_of(options.shape, place / options.shape)
    folders = {}
    for seed, (name, targets) in enumerate({"codegen": ATTENTION, "docstring": MLP}.items()):
        folders[name] = place / f"{options.shape}-{name}"
        if not folders[name].exists():
            adapter_for(base, folders[name], targets, seed=seed)
    print(f"{options.shape}: prompt {options.prompt}, {options.tokens} new, {options.threads} threads", end="")
    print(f", {options.rounds} interleaved rounds", flush=True)
    workload = Workload(
        base,
        folders,
        place / "gguf",
        quantization_of(options.shape, options.quantization),
        options.prompt,
        options.tokens,
        options.threads,
    )
    spawn = multiprocessing.get_context("spawn")
    pipes: dict[str, Any] = {}
    weights: dict[str, int] = {}
    for name in options.engines:
        pipes[name], there = spawn.Pipe()
        spawn.Process(target=worker, args=(name, workload, there), daemon=True).start()
        there.close()
        weights[name] = pipes[name].recv()

    def command(name: str, what: str) -> Any:
        pipes[name].send(what)
        return pipes[name].recv()

    speeds: dict[tuple[str, str], list[float]] = {}
    firsts: dict[tuple[str, str], list[float]] = {}
    switches: dict[str, list[float]] = {}
    for turn in range(options.rounds + 1):
        for system in SYSTEMS:
            for name in options.engines:
                began, first, end = command(name, system)
                if turn:  # the first round warms up
                    speeds.setdefault((name, system), []).append((options.tokens - 1) / (end - first))
                    firsts.setdefault((name, system), []).append(first - began)
        print(f"  round {turn} of {options.rounds} done", file=sys.stderr, flush=True)
        for name in options.engines:
            switches.setdefault(name, []).append(command(name, "switch"))
    speed = bandwidth()
    products = " and ".join(f"{peak_flops(kind) / 1e9:.0f}" for kind in (torch.float32, torch.bfloat16))
    print(f"  memory bandwidth {speed / 1e9:.1f} GB/s; matrix products {products} GFLOP/s in float32 and bf16")
    print("  engine      system     tokens/s  [least, most]     first token  of its base  of peft  of the bound")
    for (name, system), found in speeds.items():
        middle = statistics.median(found)
        floor = speed / weights[name]
        row = f"  {name:10s}  {system:9s}  {middle:8.2f}  [{min(found):.2f}, {max(found):.2f}]".ljust(50)
        row += f"{statistics.median(firsts[name, system]):8.2f} s   {median_ratio(found, speeds[name, 'base']):8.3f}"
        row += f"  {median_ratio(found, speeds['peft', system]):8.2f}" if "peft" in options.engines else f"  {'-':>8s}"
        print(f"{row}  {middle / floor:8.2f} of {floor:.1f}")
    for name in options.engines:
        found = switches[name]
        print(f"  {name:10s}  switch {statistics.median(found):7.3f} ms [{min(found):.3f}, {max(found):.3f}]", end="")
        print(f"   memory {command(name, 'memory') / 1e9:.2f} GB   weights {weights[name] / 1e9:.2f} GB")
    for pipe in pipes.values():
        pipe.send(None)


def median_ratio(these: list[float], those: list[float]) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(one / other for one, other in zip(these, those, strict=True))


if __name__ == "__main__":
    main()
