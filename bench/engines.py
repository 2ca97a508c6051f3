"""How much it costs that the rows of a batch have different adapters.

    python bench/engines.py [--shape nano|half-billion] [--rounds 7] [--tokens 48]

Rounds are interleaved, so that a machine that slows down slows all of them; printed are medians and ratios.
`half-billion` has Qwen2.5-0.5B's shapes with random weights in bf16.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from random_adapters import ATTENTION, MLP, random_adapter

from bilora.inference.loading import Loaded, load_base
from bilora.inference.local import LocalEngine
from bilora.params import Base
from bilora.ports import Request
from bilora.records import Message

NANO = Base(id="models/nano")
PROMPT = "Write a function that takes a list of numbers and returns the sum of the even ones. " * 3
SYSTEMS = ("base", "codegen", "docstring")


def loaded(shape: str) -> Loaded:
    """The base in memory."""
    nano = load_base(NANO)
    if shape == "nano":
        return nano
    from transformers import AutoModelForCausalLM, Qwen2Config

    config = Qwen2Config(
        hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, vocab_size=151_936, max_position_embeddings=4096, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    return Loaded(model, nano.tokenizer, "random")


def endless(engine: LocalEngine) -> LocalEngine:
    """Let every answer have all its tokens, so that all rounds make equally many."""
    batch: Any = engine._loop._batch
    batch._answers.stops = frozenset()
    return engine


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["nano", "half-billion"], default="nano")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=48)
    options = parser.parse_args()

    base = loaded(options.shape)
    with tempfile.TemporaryDirectory() as place:
        kinds = {"codegen": ATTENTION, "docstring": MLP}
        folders = {
            name: random_adapter(base.model, Path(place) / name, NANO, "random", kind, seed=seed)
            for seed, (name, kind) in enumerate(kinds.items())
        }
        bare, engine = endless(LocalEngine(base, {}, batch_size=8)), endless(LocalEngine(base, folders, batch_size=8))
    request = Request("r", (Message(role="user", content=PROMPT),), options.tokens)
    mixed = [(SYSTEMS[place % 3], request) for place in range(8)]
    token = Request("r", (Message(role="user", content="x"),), 1)

    def one_by_one() -> None:
        for system, asked in mixed:
            engine.generate(system, [asked])

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

    print(f"{options.shape}, {base.mode}, {torch.get_num_threads()} threads, {options.rounds} rounds")
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
