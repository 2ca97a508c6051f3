"""Training speed on one GPU, without TRL, datasets or a download: packed passes against transformers with PEFT.

    python perf/gpu_training.py [--shapes phi3-mini qwen2-1.5b smollm2] [--rows full-4096 full-1024 mbpp] [--seconds 10]
                                [--arms plain ours pair joint] [--layers N] [--out FILE]

Bases have random bf16 weights of these shapes and an adapter of rank 16 on all linear layers. `plain` is what TRL sets
up by default: padded batches, bf16 autocast, gradient checkpointing, logits of every position. `ours` is the packed
model of training. `pair` trains two adapters one after the other, `joint` both in the same passes, each on half the
rows. Each arm runs for `--seconds` after a step that is not timed. It prints one JSON line per arm: tokens per second,
padding excluded; peak GPU memory; and MFU, which counts 4 operations per token and parameter that is multiplied, and
those of attention, against `--peak` operations per second. Without a GPU it runs on the CPU, for trying it out.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Phi3Config, PretrainedConfig, Qwen2Config

from bilora.bases.loading import shared_copy
from bilora.params import Adapter
from bilora.sweeping import layers_of
from bilora.training.adapter import attach
from bilora.training.encode import IGNORED
from bilora.training.packed_model import PackedModel, PackedRow

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RANK = 16
ROWS = {"full-4096": (4096, 4096), "full-1024": (1024, 1024), "mbpp": (150, 300), "tiny": (20, 40)}
BATCH = {"full-4096": 4, "full-1024": 16, "mbpp": 16, "tiny": 4}
SHAPES: dict[str, PretrainedConfig] = {
    "phi3-mini": Phi3Config(sliding_window=2047, pad_token_id=0),
    "qwen2-1.5b": Qwen2Config(
        hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2,
        vocab_size=151_936, tie_word_embeddings=True,
    ),
    "smollm2": LlamaConfig(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        vocab_size=49_152, tie_word_embeddings=True,
    ),
}  # fmt: skip


def random_rows(kind: str, count: int, vocabulary: int, adapter: int) -> list[PackedRow]:
    """Return rows of which the second half is trained."""
    shortest, longest = ROWS[kind]
    generator = torch.Generator().manual_seed(adapter)
    rows = []
    for _ in range(count):
        length = int(torch.randint(shortest, longest + 1, (1,), generator=generator))
        ids = torch.randint(10, vocabulary, (length,), generator=generator)
        labels = ids.clone()
        labels[: length // 2] = IGNORED
        rows.append(PackedRow(ids.to(DEVICE), labels.to(DEVICE), adapter))
    return rows


def adapted(base: Any, seed: int) -> Any:
    """Return the base's weights with an adapter of their own."""
    spec = Adapter(rank=RANK, alpha=2 * RANK, dropout=0.0, target_modules=layers_of(base, "all"))
    return attach(shared_copy(base), spec, seed=seed)


def optimizer_of(models: Sequence[Any]) -> torch.optim.Optimizer:
    """Return an optimizer of all adapters."""
    trained = [one for model in models for one in model.parameters() if one.requires_grad]
    return torch.optim.AdamW(trained, lr=1e-4, fused=True)


def plain_step(model: Any, rows: Sequence[PackedRow]) -> None:
    """Train on a padded batch as TRL's defaults do."""
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([row.ids for row in rows], batch_first=True)
    labels = pad([row.labels for row in rows], batch_first=True, padding_value=IGNORED)
    mask = pad([torch.ones_like(row.ids) for row in rows], batch_first=True)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()


def steps_of(arm: str, base: Any, kind: str) -> tuple[Callable[[], None], int]:
    """Return one step of an arm, and how many tokens it trains."""
    count = BATCH[kind]
    vocabulary = base.config.vocab_size
    if arm in ("plain", "ours"):
        models, rows = [adapted(base, 0)], [random_rows(kind, count, vocabulary, 0)]
    else:
        models = [adapted(base, number) for number in range(2)]
        rows = [random_rows(kind, count // 2, vocabulary, number) for number in range(2)]
    optimizer = optimizer_of(models)
    work: list[Callable[[], object]]
    if arm == "plain":
        models[0].get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
        models[0].enable_input_require_grads()
        models[0].train()
        work = [partial(plain_step, models[0], rows[0])]
    elif arm == "pair":
        apart = [PackedModel([model]) for model in models]
        alone = [[PackedRow(row.ids, row.labels) for row in own] for own in rows]
        work = [partial(packed.train_one, own, 1e-3) for packed, own in zip(apart, alone, strict=True)]
    else:
        packed, everything = PackedModel(models), [row for own in rows for row in own]
        work = [partial(packed.train, everything, [1e-3] * len(models))]

    def step() -> None:
        for part in work:
            part()
        optimizer.step()
        optimizer.zero_grad()

    return step, sum(len(row.ids) for own in rows for row in own)


def operations(config: PretrainedConfig, base: Any, kind: str) -> float:
    """Return how many operations a token costs: forward, and backward without the weights' gradients."""
    head = base.get_output_embeddings()
    linear = [one for one in base.modules() if isinstance(one, torch.nn.Linear) and one is not head]
    weights = sum(one.weight.numel() for one in linear)
    context = sum(ROWS[kind]) / 4  # the mean number of tokens that a token sees
    attention = 12 * config.num_hidden_layers * config.hidden_size * context
    return float(4 * (weights + head.weight.numel() / 2) + attention)


def measure(step: Callable[[], None], seconds: float) -> tuple[float, float]:
    """Return steps per second and the peak of the GPU's memory in GiB."""
    step()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds or count < 2:
        step()
        count += 1
        if DEVICE == "cuda":
            torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() / 2**30 if DEVICE == "cuda" else 0.0
    return count / (time.perf_counter() - began), peak


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", choices=sorted(SHAPES), nargs="+", default=["phi3-mini", "smollm2"])
    parser.add_argument("--rows", choices=sorted(ROWS), nargs="+", default=["full-4096", "full-1024", "mbpp"])
    parser.add_argument("--arms", nargs="+", default=["plain", "ours", "pair", "joint"])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--layers", type=int, help="in place of the shape's, for trying the script out")
    parser.add_argument("--peak", type=float, default=989e12, help="the device's bf16 operations per second")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines = []
    for shape in options.shapes:
        config = SHAPES[shape]
        config.num_hidden_layers = options.layers or config.num_hidden_layers
        torch.manual_seed(0)
        with torch.device(DEVICE):
            base = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        base.requires_grad_(False)
        for kind in options.rows:
            for arm in options.arms:
                try:
                    step, tokens = steps_of(arm, base, kind)
                    rate, peak = measure(step, options.seconds)
                    found: dict[str, object] = {
                        "tokens_per_s": round(rate * tokens),
                        "gib": round(peak, 1),
                        "mfu": round(rate * tokens * operations(config, base, kind) / options.peak, 3),
                    }
                except torch.OutOfMemoryError:
                    found = {"fault": "out of memory"}
                lines.append(json.dumps({"shape": shape, "rows": kind, "arm": arm, **found}))
                print(lines[-1], flush=True)
                if options.out:
                    options.out.write_text("\n".join(lines) + "\n")
                if DEVICE == "cuda":
                    torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
