"""Batch size 1: decode speed of base and adapters, time of an adapter switch, and memory of each engine.

    python perf/inference.py [--shape params|half-billion|phi3-mini] [--engines peft torch llamacpp]
                              [--quantization q4_k_m] [--rounds 5] [--tokens 64] [--prompt 128] [--place FOLDER]

Each engine runs in its own process; rounds are interleaved and one engine works at a time, so a slowdown of the
machine affects all of them alike. `peft` is transformers with PEFT. It prints medians of the rounds, ratios to
`peft`, and the memory bound: the tokens per second at which the measured memory bandwidth reads all weights once per
token. `params` is the base of params.yaml; llama.cpp reads its GGUF file unless --quantization names another. The other
shapes have random bf16 weights. phi3-mini needs 8 GB of disk for them, 10 GB more while llama.cpp's files are
converted, and 20 GB of memory for all three engines. Files that are already in --place are reused.
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
from random_bases import ATTENTION, MLP, PARAMS_SHAPE, SHAPES, quantization_of, select_base, write_random_adapter

from bilora.bases.base import Base
from bilora.inference.engines import LocalEngine
from bilora.params import Quantization

SYSTEMS = ("base", "codegen", "docstring")
SWITCHES = 20
WORDS = "Write a function that takes a list of numbers and returns the sum of the even ones. "


@dataclass(frozen=True)
class Workload:
    """The models that a worker process loads, and the lengths of prompt and answer in tokens."""

    base: Base
    folders: dict[str, Path]
    cache_dir: Path
    quantization: Quantization | None
    prompt_tokens: int
    tokens: int
    threads: int


@dataclass(frozen=True)
class LoadedEngine:
    """A loaded engine: timestamps (start, first token, end) of one answer, time per switch, bytes of its weights."""

    answer: Callable[[str], tuple[float, float, float]]
    switch_ms: Callable[[], float]
    weight_bytes: int


def load_peft(workload: Workload) -> LoadedEngine:
    """Load transformers with PEFT: 32-bit adapters, one of them active."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(workload.base.folder(), dtype=torch.bfloat16)
    (first, folder), *others = workload.folders.items()
    model = PeftModel.from_pretrained(base, str(folder), adapter_name=first)
    for name, folder in others:
        model.load_adapter(str(folder), adapter_name=name)
    model.eval()
    ids = torch.tensor([prompt_ids(workload.base.tokenizer(), workload.prompt_tokens)])
    settings = {
        "max_new_tokens": workload.tokens,
        "min_new_tokens": workload.tokens,
        "do_sample": False,
        "pad_token_id": 0,
    }

    class TimestampStreamer:
        def __init__(self) -> None:
            self.timestamps: list[float] = []

        def put(self, _: Any) -> None:
            self.timestamps.append(time.perf_counter())

        def end(self) -> None:
            pass

    def answer(system: str) -> tuple[float, float, float]:
        streamer = TimestampStreamer()
        began = time.perf_counter()
        with torch.inference_mode():
            if system == "base":
                with model.disable_adapter():
                    model.generate(input_ids=ids, streamer=streamer, **settings)
            else:
                model.set_adapter(system)
                model.generate(input_ids=ids, streamer=streamer, **settings)
        return began, streamer.timestamps[1], streamer.timestamps[-1]  # the first is the prompt's

    def switch_ms() -> float:
        seconds = []
        for turn in range(SWITCHES):
            began = time.perf_counter()
            model.set_adapter(SYSTEMS[1 + turn % 2])
            seconds.append(time.perf_counter() - began)
        return 1000 * statistics.median(seconds)

    weight_bytes = sum(weight.nbytes for name, weight in model.named_parameters() if "lora_" not in name)
    return LoadedEngine(answer, switch_ms, weight_bytes)


def wrap_engine(engine: LocalEngine, workload: Workload, weight_bytes: int) -> LoadedEngine:
    """Return an engine of BiLoRA as a LoadedEngine.

    The time of a switch is the difference between a token after a switch and the next token of the same adapter.
    """
    from bilora.requests import Request, SamplingParams

    tokenizer = workload.base.tokenizer()
    text = tokenizer.decode(prompt_ids(tokenizer, workload.prompt_tokens))
    request = Request("r", (), SamplingParams(max_tokens=workload.tokens, ignore_eos=True), text=text)
    one_token = Request("r", (), SamplingParams(max_tokens=1), text="x")

    def answer(system: str) -> tuple[float, float, float]:
        (completion,) = engine.generate(system, [request])
        assert completion.output_tokens == workload.tokens and completion.first_token_s is not None
        return 0.0, completion.first_token_s, completion.latency_s

    def token_s(system: str) -> float:
        began = time.perf_counter()
        engine.generate(system, [one_token])
        return time.perf_counter() - began

    def switch_ms() -> float:
        costs = []
        for turn in range(SWITCHES):
            after_switch, without_switch = (token_s(SYSTEMS[1 + turn % 2]) for _ in range(2))
            costs.append(after_switch - without_switch)
        return 1000 * statistics.median(costs[2:])

    return LoadedEngine(answer, switch_ms, weight_bytes)


def load_torch(workload: Workload) -> LoadedEngine:
    """Load the torch engine."""
    from bilora.inference.torch.engine import TorchEngine
    from bilora.inference.torch.loading import load_for_inference

    loaded = load_for_inference(workload.base)
    engine = TorchEngine(loaded, workload.folders, batch_size=1)
    return wrap_engine(engine, workload, sum(weight.nbytes for weight in loaded.model.parameters()))


def load_llamacpp(workload: Workload) -> LoadedEngine:
    """Load the llama.cpp engine."""
    from bilora.inference.llamacpp.engine import LlamaEngine

    began = time.perf_counter()
    engine = LlamaEngine(workload.base, workload.quantization, workload.folders, batch_size=1, cache=workload.cache_dir)
    print(f"  llamacpp: {time.perf_counter() - began:.0f} s to convert (unless cached) and load; {engine.mode}")
    file = workload.base.gguf(
        workload.quantization,
        lambda _, kind: next(workload.cache_dir.glob(f"base-*-{kind}-*")),  # the engine has converted it
    )
    return wrap_engine(engine, workload, file.stat().st_size)


ENGINES: dict[str, Callable[[Workload], LoadedEngine]] = {
    "peft": load_peft,
    "torch": load_torch,
    "llamacpp": load_llamacpp,
}


def prompt_ids(tokenizer: Any, count: int) -> list[int]:
    """Return `count` token ids of a prompt."""
    ids: list[int] = tokenizer(WORDS * (count // 8), add_special_tokens=False)["input_ids"]
    return ids[:count]


def worker(name: str, workload: Workload, pipe: Connection) -> None:
    """Execute the pipe's commands until it sends None."""
    torch.set_num_threads(workload.threads)
    engine = ENGINES[name](workload)
    pipe.send(engine.weight_bytes)
    while (command := pipe.recv()) is not None:
        if command == "switch":
            pipe.send(engine.switch_ms())
        elif command == "memory":
            pipe.send(resident_bytes())
        else:
            pipe.send(engine.answer(command))


def resident_bytes() -> int:
    """Return this process's resident memory in bytes, mapped files included."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("Rss:")))


def memory_bandwidth() -> float:
    """Return the bytes per second that all cores read from memory together: the best of eight reads."""
    block = torch.ones(2**28)
    seconds = []
    for _ in range(8):
        began = time.perf_counter()
        block.sum()
        seconds.append(time.perf_counter() - began)
    return block.nbytes / min(seconds)


def peak_flops(dtype: torch.dtype) -> float:
    """Return the floating-point operations per second of a matrix product of this type: the best of six runs."""
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
    parser.add_argument("--shape", choices=[PARAMS_SHAPE, *SHAPES], default=PARAMS_SHAPE)
    parser.add_argument("--engines", choices=list(ENGINES), nargs="+", default=list(ENGINES))
    parser.add_argument("--quantization", choices=get_args(Quantization))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--place", type=Path, help="a folder that keeps bases, adapters and GGUF files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        measure(options, options.place or Path(temporary))


def measure(options: Any, cache_dir: Path) -> None:
    """Start the engines, run the rounds, print the table."""
    torch.set_num_threads(options.threads)
    base = select_base(options.shape, cache_dir / options.shape)
    folders = {}
    for seed, (name, targets) in enumerate({"codegen": ATTENTION, "docstring": MLP}.items()):
        folders[name] = cache_dir / f"{options.shape}-{name}"
        if not folders[name].exists():
            write_random_adapter(base, folders[name], targets, seed=seed)
    print(f"{options.shape}: prompt {options.prompt}, {options.tokens} new, {options.threads} threads", end="")
    print(f", {options.rounds} interleaved rounds", flush=True)
    workload = Workload(
        base,
        folders,
        cache_dir / "gguf",
        quantization_of(options.shape, options.quantization),
        options.prompt,
        options.tokens,
        options.threads,
    )
    spawn = multiprocessing.get_context("spawn")
    pipes: dict[str, Any] = {}
    weight_bytes: dict[str, int] = {}
    for name in options.engines:
        pipes[name], child_end = spawn.Pipe()
        spawn.Process(target=worker, args=(name, workload, child_end), daemon=True).start()
        child_end.close()
        weight_bytes[name] = pipes[name].recv()

    def execute(name: str, command: str) -> Any:
        pipes[name].send(command)
        return pipes[name].recv()

    speeds: dict[tuple[str, str], list[float]] = {}
    firsts: dict[tuple[str, str], list[float]] = {}
    switches: dict[str, list[float]] = {}
    for turn in range(options.rounds + 1):
        for system in SYSTEMS:
            for name in options.engines:
                began, first, end = execute(name, system)
                if turn:  # the first round warms up
                    speeds.setdefault((name, system), []).append((options.tokens - 1) / (end - first))
                    firsts.setdefault((name, system), []).append(first - began)
        print(f"  round {turn} of {options.rounds} done", file=sys.stderr, flush=True)
        for name in options.engines:
            switches.setdefault(name, []).append(execute(name, "switch"))
    bandwidth = memory_bandwidth()
    flops = " and ".join(f"{peak_flops(dtype) / 1e9:.0f}" for dtype in (torch.float32, torch.bfloat16))
    print(f"  memory bandwidth {bandwidth / 1e9:.1f} GB/s; matrix products {flops} GFLOP/s in float32 and bf16")
    print("  engine      system     tokens/s  [least, most]     first token  of its base  of peft  of the bound")
    for (name, system), rates in speeds.items():
        median = statistics.median(rates)
        bound = bandwidth / weight_bytes[name]
        row = f"  {name:10s}  {system:9s}  {median:8.2f}  [{min(rates):.2f}, {max(rates):.2f}]".ljust(50)
        row += f"{statistics.median(firsts[name, system]):8.2f} s   {median_ratio(rates, speeds[name, 'base']):8.3f}"
        row += f"  {median_ratio(rates, speeds['peft', system]):8.2f}" if "peft" in options.engines else f"  {'-':>8s}"
        print(f"{row}  {median / bound:8.2f} of {bound:.1f}")
    for name in options.engines:
        times = switches[name]
        print(f"  {name:10s}  switch {statistics.median(times):7.3f} ms [{min(times):.3f}, {max(times):.3f}]", end="")
        memory, weights = execute(name, "memory"), weight_bytes[name]
        print(f"   memory {memory / 1e9:.2f} GB   weights {weights / 1e9:.2f} GB")
    for pipe in pipes.values():
        pipe.send(None)


def median_ratio(numerators: list[float], denominators: list[float]) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


if __name__ == "__main__":
    main()
