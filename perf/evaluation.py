"""Evaluation speed: the torch engine against transformers' generate, on the prompts of both tasks.

    python perf/evaluation.py --base FOLDER [--dtype bfloat16] [--tasks codegen docstring] [--prompts 100] [--rounds 3]
                              [--fixed-length] [--batch-size 32] [--threads N] [--cpu-time]

Per task `--prompts` generated exercises or documented functions of installed packages, as the benchmark sends them;
greedy, with the length limits below. `generate` gets batches of prompts of similar length, padded on the left. Rounds
are interleaved; it prints medians of output tokens per second, and of the rounds' ratios. `--fixed-length` gives every
answer the longest length, so that no batch waits for its last answer. `--cpu-time` counts the processor time of the
process instead of wall time, for a machine that others use too; use it with `--threads 1`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bilora.bases.kinds.folder import FolderBase
from bilora.bases.prompt import encode_prompt
from bilora.inference.torch.engine import TorchEngine
from bilora.inference.torch.loading import load_for_inference
from bilora.params import Generation
from bilora.records import Sample
from bilora.requests import Request
from bilora.sources.kinds.exercises import Exercises, ExercisesSettings
from bilora.sources.kinds.installed import function_rows
from bilora.sources.packages import package_modules
from bilora.tasks.codegen import TASK as CODEGEN
from bilora.tasks.docstring import TASK as DOCSTRING
from bilora.tasks.task import Task

LIMITS = {"codegen": 160, "docstring": 40}
"""Output tokens at most."""
MAX_PROMPT_CHARS = 1100
"""Of a function, as params.yaml has it."""


def samples(task: Task, count: int) -> list[Sample]:
    """Return the first samples of a task: exercises of every tier, or the functions of one package."""
    if task is CODEGEN:
        each = count // 3 + 1
        settings = ExercisesSettings(kind="exercises", compositions={"one": each, "two": each, "three": each})
        rows = list(Exercises(settings, 0).rows())[:: max(1, each // 20)]
    else:
        rows = [row for module in package_modules("networkx", "test") for row in function_rows(module)]
    read = (task.sample(row) for row in rows)
    found = [one for one in read if isinstance(one, Sample) and len(one.prompt) <= MAX_PROMPT_CHARS]
    return found[:: max(1, len(found) // count)][:count]


def transformers_generate(base: FolderBase, batch_size: int) -> Callable[[Sequence[Request]], int]:
    """Return what answers requests by transformers' generate, and counts the tokens of the answers."""
    loaded = base.load(training=False)
    model, tokenizer = loaded.model, loaded.tokenizer
    stops = set(loaded.stop_ids)

    def answer(requests: Sequence[Request]) -> int:
        encoded = sorted((encode_prompt(tokenizer, request.messages) for request in requests), key=len, reverse=True)
        limit, ignore_eos = requests[0].sampling.max_tokens, requests[0].sampling.ignore_eos
        made = 0
        for at in range(0, len(encoded), batch_size):
            batch = encoded[at : at + batch_size]
            width = len(batch[0])
            padded = torch.tensor([[0] * (width - len(ids)) + ids for ids in batch])
            seen = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in batch])
            settings: dict[str, Any] = {"min_new_tokens": limit} if ignore_eos else {"eos_token_id": sorted(stops)}
            with torch.inference_mode():
                ids = model.generate(
                    input_ids=padded,
                    attention_mask=seen,
                    max_new_tokens=limit,
                    do_sample=False,
                    pad_token_id=0,
                    **settings,
                )
            for row in ids[:, width:].tolist():
                ends = [] if ignore_eos else [place for place, token in enumerate(row) if token in stops]
                made += ends[0] + 1 if ends else len(row)
        return made

    return answer


def torch_engine(base: FolderBase, batch_size: int) -> Callable[[Sequence[Request]], int]:
    """Return what answers requests by the torch engine, and counts the tokens of the answers."""
    engine = TorchEngine(load_for_inference(base), {}, batch_size=batch_size)
    return lambda requests: sum(made.output_tokens or 0 for made in engine.generate("base", requests))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--tasks", choices=list(LIMITS), nargs="+", default=list(LIMITS))
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--fixed-length", action="store_true")
    parser.add_argument("--cpu-time", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.cpu_time else time.perf_counter
    base = FolderBase.at(options.base, dtype=options.dtype)
    runs = {
        "generate": transformers_generate(base, options.batch_size),
        "engine": torch_engine(base, options.batch_size),
    }
    length = "every answer of full length" if options.fixed_length else "answers end by themselves"
    print(
        f"{options.base.name}, {options.dtype}, {options.prompts} prompts per task, {options.threads} threads, {length}"
    )
    for task in (task for task in (CODEGEN, DOCSTRING) if task.name in options.tasks):
        generation = Generation(max_new_tokens=LIMITS[task.name], batch_size=options.batch_size)
        sampling = replace(generation.sampling(), ignore_eos=options.fixed_length)
        requests = [Request(one.id, task.messages(one.prompt), sampling) for one in samples(task, options.prompts)]
        speeds: dict[str, list[float]] = {name: [] for name in runs}
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(options.rounds):
            for name, run in runs.items():
                began = clock()
                made = run(requests)
                seconds[name].append(clock() - began)
                speeds[name].append(made / seconds[name][-1])
        for name in runs:
            print(f"  {task.name:9s} {name:8s} {statistics.median(speeds[name]):7.1f} tokens/s", end="")
            print(f" [{min(speeds[name]):.1f}, {max(speeds[name]):.1f}]  {statistics.median(seconds[name]):6.1f} s")
        ratios = [one / other for one, other in zip(speeds["engine"], speeds["generate"], strict=True)]
        print(
            f"  {task.name:9s} engine / generate: {statistics.median(ratios):.2f}    (wanted: at least 2)", flush=True
        )


if __name__ == "__main__":
    main()
