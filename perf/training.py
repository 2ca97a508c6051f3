"""Training speed on this machine: TRL with PEFT as they come, 32-bit plain, and ours, beside the floor.

    python perf/training.py (--base FOLDER | --shape phi3-mini|qwen2-1.5b|smollm2)
                            [--rows exercises docstrings mbpp full-1024 full-4096] [--batch N] [--steps 8] [--rounds 3]
                            [--arms trl plain32 ours pair joint eight floor]

A shape is a base with random weights. Rounds are interleaved, so that a slowdown of the machine affects all arms alike.
On a CPU every arm of every round is a process of its own, so that its peak memory is its own. Tokens are those of the
rows, prompts included and padding excluded; the first step of each adapter is not timed. `trl` has TRL's defaults, bf16
autocast and gradient checkpointing among them, on a 32-bit base, which on a GPU is in bf16. `pair` trains two adapters
one after the other on one loaded base, `joint` the same two together, `eight` eight. `floor` is only what is
multiplied, in the precision of `ours` and without padding: base, LoRA, attention, and the head on trained tokens.
Processor seconds are those of all threads; they count where other programs use the machine too. On a GPU the table has
MFU in their place: 4 operations per token and parameter, and those of attention, against `--peak` per second.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM, LlamaConfig, Phi3Config, PretrainedConfig, Qwen2Config

from bilora.bases.kinds.folder import FolderBase
from bilora.inference.memory import keep_freed_memory
from bilora.inference.torch.products import add_product, product
from bilora.params import Adapter
from bilora.plugins import Dtype
from bilora.sweeping import layers_of
from bilora.training.encode import IGNORED

ARMS = ("trl", "plain32", "ours", "pair", "joint", "eight", "floor")
ADAPTERS = {"pair": 2, "joint": 2, "eight": 8}
ROWS = {
    "exercises": ((110, 150), 0.5),
    "docstrings": ((150, 230), 0.2),
    "mbpp": ((150, 300), 0.4),
    "full-1024": ((1024, 1024), 0.5),
    "full-4096": ((4096, 4096), 0.5),
}
"""Per kind of row: the range of lengths in tokens, and which share of a row is trained."""
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
RANK = 16
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"


def load(options: argparse.Namespace, arm: str) -> tuple[Any, Any]:
    """Return the base in the arm's precision, and a tokenizer."""
    dtype: Dtype = "float32" if arm == "plain32" or (arm == "trl" and not CUDA) else "auto"
    base = FolderBase.at(options.base or "models/smoke", dtype=dtype)
    if options.base:
        return base.load(training=True).model, base.tokenizer()
    return random_model(options.shape, base.precision), base.tokenizer()


@cache
def random_model(shape: str, precision: str) -> Any:
    """Return a frozen model with random weights; arms that share a process share it."""
    torch.manual_seed(0)
    with torch.device(DEVICE):
        model = AutoModelForCausalLM.from_config(SHAPES[shape], dtype=getattr(torch, precision))
    return model.requires_grad_(False)


def encoded_rows(kind: str, count: int, vocabulary: int) -> list[dict[str, list[int]]]:
    """Return rows of random tokens."""
    (shortest, longest), share = ROWS[kind]
    generator = torch.Generator().manual_seed(1)
    rows = []
    for _ in range(count):
        length = int(torch.randint(shortest, longest + 1, (1,), generator=generator))
        ids = torch.randint(10, vocabulary, (length,), generator=generator).tolist()
        prompt = round(length * (1 - share))
        rows.append({"input_ids": ids, "labels": [IGNORED] * prompt + ids[prompt:]})
    return rows


def adapted(model: Any, *, plain: bool) -> Any:
    """Return the base with an adapter on all linear layers but the head; `plain` is PEFT's own."""
    from peft import LoraConfig, get_peft_model

    from bilora.training.adapter import attach

    targets = layers_of(model, "all")
    if plain:
        config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets, task_type="CAUSAL_LM")
        return get_peft_model(model, config)
    return attach(model, Adapter(rank=RANK, alpha=2 * RANK, dropout=0.0, target_modules=targets), seed=1)


def clocks() -> tuple[float, float]:
    """Return wall and processor seconds, once the GPU has done what it was given."""
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


@dataclass
class Training:
    """One adapter's training: its trainer, when each step ended by wall and processor clock, and its tokens."""

    trainer: Any
    ends: list[tuple[float, float]]
    tokens: list[int]

    def run(self) -> None:
        """Train."""
        self.trainer.train()

    @property
    def timed_tokens(self) -> int:
        """The tokens of all steps but the first."""
        return sum(self.tokens[1 : len(self.ends)])


def training(arm: str, model: Any, tokenizer: Any, options: argparse.Namespace, folder: str, **extra: Any) -> Training:
    """Build the trainer of an arm for a model with an adapter."""
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import SFTConfig, SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from bilora.training.sft_trainer import AdapterTrainer

    ends: list[tuple[float, float]] = []
    tokens: list[int] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: object, **__: object) -> None:
            ends.append(clocks())

    class Collator(DataCollatorForLanguageModeling):  # type: ignore[misc]
        def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
            tokens.append(sum(len(row["input_ids"]) for row in examples))
            batch: dict[str, Any] = super().torch_call(examples)
            return batch

    ours = arm not in ("trl", "plain32")
    settings: dict[str, Any] = {} if arm == "trl" else {"bf16": CUDA and ours, "activation_checkpointing": False}
    arguments = SFTConfig(
        folder,
        per_device_train_batch_size=options.batch,
        max_steps=options.steps + 1,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        use_cpu=not CUDA,
        dataloader_pin_memory=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **settings,
    )
    trainer_type: Callable[..., Any] = AdapterTrainer if ours else SFTTrainer
    rows = encoded_rows(options.kind, options.batch * (options.steps + 1), model.config.vocab_size)
    trainer = trainer_type(
        model=model,
        args=arguments,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
        data_collator=Collator(pad_token_id=0),
        callbacks=[Clock()],
        **({"metric": lambda: 0.0, "patience": 1, **extra} if ours else {}),
    )
    trainer.remove_callback(PrinterCallback)
    return Training(trainer, ends, tokens)


def train_arm(arm: str, options: argparse.Namespace, folder: str) -> dict[str, float]:
    """Return tokens per second and per processor second of an arm that trains."""
    from bilora.bases.loading import shared_copy
    from bilora.training.together import Together

    if arm != "trl":
        keep_freed_memory()
    loaded, tokenizer = load(options, arm)
    plain = arm in ("trl", "plain32")
    models = [adapted(shared_copy(loaded), plain=plain) for _ in range(ADAPTERS.get(arm, 1))]
    together = Together() if arm in ("joint", "eight") else None
    found: list[Training] = []

    def run(model: Any) -> None:
        extra = {"train_rows": together.steps_of(model)} if together else {}
        found.append(training(arm, model, tokenizer, options, folder, **extra))
        found[-1].run()

    if together:
        together.run([partial(run, model) for model in models])
        first = [max(one.ends[0][clock] for one in found) for clock in (0, 1)]
        last = [max(one.ends[-1][clock] for one in found) for clock in (0, 1)]
        seconds, processor = last[0] - first[0], last[1] - first[1]
    else:
        for model in models:
            run(model)
        seconds, processor = (sum(one.ends[-1][clock] - one.ends[0][clock] for one in found) for clock in (0, 1))
    tokens = sum(one.timed_tokens for one in found)
    return {"wall": tokens / seconds, "processor": tokens / processor}


def floor_arm(options: argparse.Namespace) -> dict[str, float]:
    """Return the same of the products alone, whose operands are made beforehand."""
    keep_freed_memory()
    model, _ = load(options, "floor")
    head = model.get_output_embeddings()
    config, dtype = model.config, model.dtype
    weights = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    rows = encoded_rows(options.kind, options.batch, config.vocab_size)
    tokens = sum(len(row["input_ids"]) for row in rows)
    length = tokens // options.batch
    trained = sum(label != IGNORED for row in rows for label in row["labels"])
    size = config.hidden_size // config.num_attention_heads
    groups = options.batch * config.num_key_value_heads
    stacked = config.num_attention_heads // config.num_key_value_heads * length

    @cache
    def operand(*sizes: int) -> Tensor:
        return torch.randn(sizes, dtype=dtype, device=DEVICE)

    def attention() -> None:
        if CUDA:  # by the kernel that holds no scores
            with torch.enable_grad():
                heads = operand(options.batch, config.num_attention_heads, length, size).detach().requires_grad_()
                out = scaled_dot_product_attention(heads, heads, heads, is_causal=True)
                torch.autograd.grad(out, heads, operand(*out.shape))
            return
        query, key = operand(groups, stacked, size), operand(groups, length, size)
        scores = operand(groups, stacked, length)
        for _ in range(2):  # two products forward, four backward
            torch.bmm(query, key.transpose(1, 2))
            torch.bmm(scores, key)
            torch.bmm(scores.transpose(1, 2), query)

    def step() -> None:
        for weight in weights:
            width_out, width_in = weight.shape
            x, gradient = operand(tokens, width_in), operand(tokens, width_out)
            a, b = operand(RANK, width_in), operand(width_out, RANK)
            inner = product(x, a)
            add_product(product(x, weight), inner, b)
            inner_gradient = product(gradient, b.T)
            add_product(product(gradient, weight.T), inner_gradient, a.T)
            product(inner_gradient.T, x.T), product(gradient.T, inner.T)
        for _ in range(config.num_hidden_layers):
            attention()
        logits = product(operand(trained, config.hidden_size), head.weight)
        product(logits, head.weight.T)

    ends = []
    with torch.no_grad():
        for _ in range(options.steps + 1):
            step()
            ends.append(clocks())
    made = options.steps * tokens
    return {"wall": made / (ends[-1][0] - ends[0][0]), "processor": made / (ends[-1][1] - ends[0][1])}


def operations(config: PretrainedConfig, kind: str) -> float:
    """Return how many operations a token costs: forward, and backward without the weights' gradients."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    linear_layers = [one for one in model.modules() if isinstance(one, torch.nn.Linear) and one is not head]
    (shortest, longest), share = ROWS[kind]
    multiplied = sum(one.weight.numel() for one in linear_layers) + head.weight.numel() * share
    seen = (shortest + longest) / 4  # the mean number of tokens that a token sees
    return float(4 * multiplied + 12 * config.num_hidden_layers * config.hidden_size * seen)


@contextmanager
def cleared_gpu() -> Iterator[None]:
    """Leave nothing of this arm in the GPU's memory, and measure its peak alone."""
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    yield
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()


def measure_here(arm: str, options: argparse.Namespace) -> dict[str, float]:
    """Run one arm in this process."""
    with cleared_gpu(), tempfile.TemporaryDirectory() as folder:
        found = floor_arm(options) if arm == "floor" else train_arm(arm, options, folder)
        process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10
        return {**found, "gib": (torch.cuda.max_memory_allocated() if CUDA else process) / 2**30}


def measure_in_child(arm: str, options: argparse.Namespace) -> dict[str, float]:
    """Run one arm in a process of its own."""
    command = [sys.executable, *sys.argv, "--child", arm, "--rows", options.kind]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found


def report(options: argparse.Namespace, rounds: list[dict[str, dict[str, float]]]) -> None:
    """Print the medians."""
    where = torch.cuda.get_device_name() if CUDA else f"{torch.get_num_threads()} threads"
    print(f"\n{options.base or options.shape}, {options.kind}, batch {options.batch}, {where}")
    print(f"medians of {options.rounds} interleaved rounds of {options.steps} steps\n")
    config = SHAPES[options.shape] if options.shape else FolderBase.at(options.base).config()
    cost = operations(config, options.kind)
    clock, second = ("wall", "MFU") if CUDA else ("processor", "tokens per processor second")
    print(f"| arm | tokens/s | {second} | of the floor | peak memory |\n|---|---:|---:|---:|---:|")
    medians = {
        arm: {name: statistics.median(found[arm][name] for found in rounds) for name in ("wall", "processor", "gib")}
        for arm in options.arms
    }
    for arm, found in medians.items():
        share = f"{found[clock] / medians['floor'][clock]:.2f}" if "floor" in medians else ""
        value = f"{found['wall'] * cost / options.peak:.3f}" if CUDA else f"{found['processor']:.0f}"
        print(f"| {arm} | {found['wall']:.0f} | {value} | {share} | {found['gib']:.1f} GiB |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    bases = parser.add_mutually_exclusive_group(required=True)
    bases.add_argument("--base", type=Path, help="a model folder")
    bases.add_argument("--shape", choices=sorted(SHAPES), help="random weights")
    parser.add_argument("--rows", choices=sorted(ROWS), nargs="+", default=["exercises"])
    parser.add_argument("--batch", type=int, help="rows per step: 8 by default; on a GPU 16 or 16,384 tokens")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arms", choices=ARMS, nargs="+", default=list(ARMS))
    parser.add_argument("--peak", type=float, default=989e12, help="a GPU's bf16 operations per second")
    parser.add_argument("--child", choices=ARMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    for kind in options.rows:
        batch = options.batch or (min(16, 16_384 // ROWS[kind][0][1]) if CUDA else 8)
        chosen = argparse.Namespace(**{**vars(options), "kind": kind, "batch": batch})
        if options.child:
            print(json.dumps(measure_here(options.child, chosen)))
            continue
        rounds = []
        for number in range(options.rounds):
            rounds.append({arm: (measure_here if CUDA else measure_in_child)(arm, chosen) for arm in options.arms})
            print(f"{kind}: round {number + 1} of {options.rounds} done", file=sys.stderr)
        report(chosen, rounds)


if __name__ == "__main__":
    main()
