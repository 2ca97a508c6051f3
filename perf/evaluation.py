"""Evaluation speed: the torch engine against transformers' generate with PEFT, on the test samples of a workspace.

    python perf/evaluation.py [--checkout .] [--samples 200] [--rounds 3] [--threads N] [--cpu-time]

As in the benchmark, base and adapter answer each task's test samples greedily, with the task's length limit and batch
size; the workspace needs trained adapters (`make demo`). `generate` gets batches of prompts of similar length, padded
on the left, and ends a batch with its last answer. Rounds are interleaved; it prints medians of seconds and of output
tokens per second, and of the rounds' ratios of seconds. `--cpu-time` counts the processor time of this process instead,
for a machine that runs other programs too; use it with `--threads 1`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bilora.bases.base import Base
from bilora.bases.prompt import encode_prompt
from bilora.inference.engine import BASE_SYSTEM
from bilora.inference.torch.engine import TorchEngine
from bilora.inference.torch.loading import load_for_inference
from bilora.library_logs import silence_libraries
from bilora.requests import Request
from bilora.workspace import Workspace

Answer = Callable[[str, Sequence[Request], int], int]
"""Answer the requests of one system in batches of a given size; return the number of output tokens."""


def transformers_generate(base: Base, adapters: Mapping[str, Path]) -> Answer:
    """Return a function that answers with transformers' generate; each adapter has its own copy of the base."""
    from peft import PeftModel

    loaded = base.load(training=False)
    tokenizer, stop_ids = loaded.tokenizer, set(loaded.stop_ids)
    models: dict[str, Any] = {BASE_SYSTEM: loaded.model}
    for name, folder in adapters.items():
        models[name] = PeftModel.from_pretrained(base.load(training=False).model, str(folder)).eval()

    def answer(system: str, requests: Sequence[Request], batch_size: int) -> int:
        encoded = sorted((encode_prompt(tokenizer, request.messages) for request in requests), key=len, reverse=True)
        output_tokens = 0
        for start in range(0, len(encoded), batch_size):
            batch = encoded[start : start + batch_size]
            width = len(batch[0])
            with torch.inference_mode():
                ids = models[system].generate(
                    input_ids=torch.tensor([[0] * (width - len(ids)) + ids for ids in batch]),
                    attention_mask=torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in batch]),
                    max_new_tokens=requests[0].sampling.max_tokens,
                    do_sample=False,
                    pad_token_id=0,
                    eos_token_id=sorted(stop_ids),
                )
            for row in ids[:, width:].tolist():
                ends = [index for index, token in enumerate(row) if token in stop_ids]
                output_tokens += ends[0] + 1 if ends else len(row)
        return output_tokens

    return answer


def torch_engine(base: Base, adapters: Mapping[str, Path], batch_sizes: set[int]) -> Answer:
    """Return a function that answers with the torch engine."""
    loaded = load_for_inference(base)
    engines = {size: TorchEngine(loaded, adapters, batch_size=size) for size in batch_sizes}

    def answer(system: str, requests: Sequence[Request], batch_size: int) -> int:
        completions = engines[batch_size].generate(system, requests)
        return sum(completion.output_tokens or 0 for completion in completions)

    return answer


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, default=Path())
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cpu-time", action="store_true")
    options = parser.parse_args()
    silence_libraries()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.cpu_time else time.perf_counter
    workspace = Workspace(options.checkout)
    base = workspace.base()
    adapters = {name: workspace.checked_adapter(name) for name in workspace.tasks}
    sizes = {name: workspace.task(name)[0].generation.batch_size for name in adapters}
    runs = {
        "generate": transformers_generate(base, adapters),
        "engine": torch_engine(base, adapters, set(sizes.values())),
    }
    print(f"{base.id}, {base.precision}, {options.threads} threads, medians of {options.rounds} rounds")
    for name in adapters:
        settings, task = workspace.task(name)
        requests = task.requests(workspace.split_samples(name, "test")[: options.samples], settings.generation, 0)
        for system in (BASE_SYSTEM, name):
            seconds: dict[str, list[float]] = {arm: [] for arm in runs}
            tokens: dict[str, int] = {}
            for _ in range(options.rounds):
                for arm, run in runs.items():
                    began = clock()
                    tokens[arm] = run(system, requests, sizes[name])
                    seconds[arm].append(clock() - began)
            ratios = [theirs / ours for theirs, ours in zip(seconds["generate"], seconds["engine"], strict=True)]
            columns = "; ".join(
                f"{arm} {statistics.median(times):.1f} s [{min(times):.1f}, {max(times):.1f}], {tokens[arm]:,} tokens, "
                f"{tokens[arm] / statistics.median(times):.0f} per second"
                for arm, times in seconds.items()
            )
            print(f"{name}, {system}: {columns}; engine {statistics.median(ratios):.2f} times as fast", flush=True)


if __name__ == "__main__":
    main()
