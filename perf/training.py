"""Training speed on this machine: TRL with PEFT, the same in 32-bit, BiLoRA, and the matrix products alone.

    python perf/training.py (--base FOLDER | --shape phi3-mini|qwen2-1.5b|smollm2)
                            [--rows exercises docstrings mbpp full-1024 full-4096] [--batch N] [--steps 8] [--rounds 3]
                            [--arms trl plain32 ours pair joint eight matmul]

A shape is a base with random weights. Rounds are interleaved, so that a slowdown of the machine affects all arms alike.
On a CPU every arm of every round runs in a separate process, so that its peak memory is measured alone. Tokens are
those of the rows, prompts included and padding excluded; the first step of each adapter is not timed. `trl` has TRL's
defaults, including bf16 autocast and gradient checkpointing, on a 32-bit base (bf16 on a GPU); `plain32` is TRL with
PEFT in 32-bit. `pair` trains two adapters one after the other on one loaded base, `joint` the same two together,
`eight` eight together. `matmul` computes only the matrix products, in the precision of `ours` and without padding:
base, LoRA, attention, and the head on trained tokens. Processor seconds are those of all threads; they are comparable
where other programs run too. On a GPU the table has MFU instead: 4 operations per token and parameter, and those of
attention, divided by `--peak` per second.
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
from bilora.sweeping import linear_layers
from bilora.training.encode import IGNORE_INDEX

ARMS = ("trl", "plain32", "ours", "pair", "joint", "eight", "matmul")
ADAPTERS = {"pair": 2, "joint": 2, "eight": 8}
ROWS = {
    "exercises": ((110, 150), 0.5),
    "docstrings": ((150, 230), 0.2),
    "mbpp": ((150, 300), 0.4),
    "full-1024": ((1024, 1024), 0.5),
    "full-4096": ((4096, 4096), 0.5),
}
"""Per kind of row: the range of lengths in tokens, and the share of tokens that is trained."""
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
    """Return a frozen model with random weights; the arms of one process share it."""
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
        rows.append({"input_ids": ids, "labels": [IGNORE_INDEX] * prompt + ids[prompt:]})
    return rows


def add_adapter(model: Any, *, by_peft: bool) -> Any:
    """Return the base with an adapter on all linear layers except the head, with PEFT's layers or BiLoRA's."""
    from peft import LoraConfig, get_peft_model

    from bilora.training.adapter import attach_adapter

    targets = linear_layers(model, "all")
    if by_peft:
        config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets, task_type="CAUSAL_LM")
        return get_peft_model(model, config)
    return attach_adapter(model, Adapter(rank=RANK, alpha=2 * RANK, dropout=0.0, target_modules=targets), seed=1)


def clocks() -> tuple[float, float]:
    """Return wall and processor seconds, after the GPU has finished its work."""
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


@dataclass
class Training:
    """One adapter's training: its trainer, wall and processor seconds at the end of each step, tokens per step."""

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


def build_training(
    arm: str, model: Any, tokenizer: Any, options: argparse.Namespace, folder: str, **extra: Any
) -> Training:
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
    """Return the tokens per second and per processor second of an arm that trains."""
    from bilora.bases.loading import shared_copy
    from bilora.training.joint_training import JointTraining

    if arm != "trl":
        keep_freed_memory()
    loaded, tokenizer = load(options, arm)
    by_peft = arm in ("trl", "plain32")
    models = [add_adapter(shared_copy(loaded), by_peft=by_peft) for _ in range(ADAPTERS.get(arm, 1))]
    joint = JointTraining() if arm in ("joint", "eight") else None
    trainings: list[Training] = []

    def run(model: Any) -> None:
        extra = {"train_rows": joint.step_function(model)} if joint else {}
        trainings.append(build_training(arm, model, tokenizer, options, folder, **extra))
        trainings[-1].run()

    if joint:
        joint.run([partial(run, model) for model in models])
        first = [max(training.ends[0][clock] for training in trainings) for clock in (0, 1)]
        last = [max(training.ends[-1][clock] for training in trainings) for clock in (0, 1)]
        seconds, processor = last[0] - first[0], last[1] - first[1]
    else:
        for model in models:
            run(model)
        seconds, processor = (
            sum(training.ends[-1][clock] - training.ends[0][clock] for training in trainings) for clock in (0, 1)
        )
    tokens = sum(training.timed_tokens for training in trainings)
    return {"wall": tokens / seconds, "processor": tokens / processor}


def matmul_arm(options: argparse.Namespace) -> dict[str, float]:
    """Return the tokens per second and per processor second of the matrix products alone.

    1) Create all operands once. 2) Per step compute, for each linear layer, the products of base and LoRA forward and
    backward, 3) those of attention per layer, 4) and those of the head on trained tokens.
    """
    keep_freed_memory()
    model, _ = load(options, "matmul")
    head = model.get_output_embeddings()
    config, dtype = model.config, model.dtype
    weights = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    rows = encoded_rows(options.kind, options.batch, config.vocab_size)
    tokens = sum(len(row["input_ids"]) for row in rows)
    length = tokens // options.batch
    trained = sum(label != IGNORE_INDEX for row in rows for label in row["labels"])
    size = config.hidden_size // config.num_attention_heads
    groups = options.batch * config.num_key_value_heads
    stacked = config.num_attention_heads // config.num_key_value_heads * length

    @cache
    def operand(*sizes: int) -> Tensor:
        return torch.randn(sizes, dtype=dtype, device=DEVICE)

    def attention() -> None:
        if CUDA:  # by the kernel that does not store the scores
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
    total = options.steps * tokens
    return {"wall": total / (ends[-1][0] - ends[0][0]), "processor": total / (ends[-1][1] - ends[0][1])}


def operations_per_token(config: PretrainedConfig, kind: str) -> float:
    """Return the operations per token: forward, and backward without the gradients of frozen weights."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    weights = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    (shortest, longest), share = ROWS[kind]
    parameters = sum(weight.numel() for weight in weights) + head.weight.numel() * share
    context = (shortest + longest) / 4  # the mean number of tokens that a token attends to
    return float(4 * parameters + 12 * config.num_hidden_layers * config.hidden_size * context)


@contextmanager
def cleared_gpu() -> Iterator[None]:
    """Reset the GPU's peak memory before an arm, and free its memory afterwards."""
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    yield
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()


def measure_here(arm: str, options: argparse.Namespace) -> dict[str, float]:
    """Run one arm in this process."""
    with cleared_gpu(), tempfile.TemporaryDirectory() as folder:
        speeds = matmul_arm(options) if arm == "matmul" else train_arm(arm, options, folder)
        peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10
        return {**speeds, "gib": (torch.cuda.max_memory_allocated() if CUDA else peak_rss) / 2**30}


def measure_in_child(arm: str, options: argparse.Namespace) -> dict[str, float]:
    """Run one arm in a separate process."""
    command = [sys.executable, *sys.argv, "--child", arm, "--rows", options.kind]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    return result


def report(options: argparse.Namespace, rounds: list[dict[str, dict[str, float]]]) -> None:
    """Print the medians."""
    device = torch.cuda.get_device_name() if CUDA else f"{torch.get_num_threads()} threads"
    print(f"\n{options.base or options.shape}, {options.kind}, batch {options.batch}, {device}")
    print(f"medians of {options.rounds} interleaved rounds of {options.steps} steps\n")
    config = SHAPES[options.shape] if options.shape else FolderBase.at(options.base).config()
    operations = operations_per_token(config, options.kind)
    clock, column = ("wall", "MFU") if CUDA else ("processor", "tokens per processor second")
    print(f"| arm | tokens/s | {column} | of matmul | peak memory |\n|---|---:|---:|---:|---:|")
    medians = {
        arm: {
            name: statistics.median(results[arm][name] for results in rounds) for name in ("wall", "processor", "gib")
        }
        for arm in options.arms
    }
    for arm, median in medians.items():
        share = f"{median[clock] / medians['matmul'][clock]:.2f}" if "matmul" in medians else ""
        value = f"{median['wall'] * operations / options.peak:.3f}" if CUDA else f"{median['processor']:.0f}"
        print(f"| {arm} | {median['wall']:.0f} | {value} | {share} | {median['gib']:.1f} GiB |", flush=True)


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
        kind_options = argparse.Namespace(**{**vars(options), "kind": kind, "batch": batch})
        if options.child:
            print(json.dumps(measure_here(options.child, kind_options)))
            continue
        rounds = []
        for number in range(options.rounds):
            measure = measure_here if CUDA else measure_in_child
            rounds.append({arm: measure(arm, kind_options) for arm in options.arms})
            print(f"{kind}: round {number + 1} of {options.rounds} done", file=sys.stderr)
        report(kind_options, rounds)


if __name__ == "__main__":
    main()
