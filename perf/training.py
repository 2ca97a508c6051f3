"""Training speed of one adapter on this machine: TRL with PEFT as they come, 32-bit plain, and ours, beside the floor.

    python perf/training.py --base FOLDER [--rows exercises|docstrings] [--batch 8] [--steps 4] [--rounds 3]
                            [--arms trl plain32 ours floor]

Every arm of every round is a process of its own, so that its peak memory is its own; rounds are interleaved, so that a
slowdown of the machine affects all arms alike. Tokens are those of the rows, prompts included and padding excluded;
the first step of a process is not timed. `trl` has TRL's defaults, bf16 autocast and gradient checkpointing among
them. `floor` is only what must be multiplied, in the precision of `ours`: base, LoRA, attention, and the head on
trained tokens. Processor seconds are those of all threads; they count where other programs use the machine too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import linear

from bilora.bases.kinds.folder import FolderBase
from bilora.inference.memory import keep_freed_memory
from bilora.params import Adapter
from bilora.training.encode import IGNORED

ARMS = ("trl", "plain32", "ours", "floor")
ROWS = {"exercises": ((110, 150), 0.5), "docstrings": ((150, 230), 0.2)}
"""Per kind of row: the range of lengths in tokens, and which share of a row is trained."""
RANK = 16


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


def adapted(base: FolderBase, *, plain: bool) -> Any:
    """Return the base with an adapter on all linear layers but the head; `plain` is PEFT's own."""
    from peft import LoraConfig, get_peft_model

    from bilora.training.adapter import attach

    model = base.load(training=True).model
    head = model.get_output_embeddings()
    layers = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    ]
    targets = sorted({name.rpartition(".")[2] for name, _ in layers})
    if plain:
        config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets, task_type="CAUSAL_LM")
        return get_peft_model(model, config)
    return attach(model, Adapter(rank=RANK, alpha=2 * RANK, dropout=0.0, target_modules=targets), seed=1)


def train_arm(arm: str, options: argparse.Namespace, folder: str) -> tuple[list[float], list[float], list[int]]:
    """Return per step its seconds, its processor seconds and its tokens."""
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import SFTConfig, SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from bilora.training.sft_trainer import AdapterTrainer

    seconds, processor, tokens = [], [], []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: object, **__: object) -> None:
            self.began = time.perf_counter(), time.process_time()

        def on_step_end(self, *_: object, **__: object) -> None:
            seconds.append(time.perf_counter() - self.began[0])
            processor.append(time.process_time() - self.began[1])

    class Collator(DataCollatorForLanguageModeling):  # type: ignore[misc]
        def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
            tokens.append(sum(len(row["input_ids"]) for row in examples))
            batch: dict[str, Any] = super().torch_call(examples)
            return batch

    base = FolderBase.at(options.base, dtype="auto" if arm == "ours" else "float32")
    if arm != "trl":
        keep_freed_memory()
    model = adapted(base, plain=arm != "ours")
    settings: dict[str, Any] = {} if arm == "trl" else {"bf16": False, "activation_checkpointing": False}
    arguments = SFTConfig(
        folder,
        per_device_train_batch_size=options.batch,
        max_steps=options.steps + 1,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **settings,
    )
    trainer_type: Callable[..., Any] = SFTTrainer
    extra: dict[str, Any] = {}
    if arm == "ours":
        trainer_type, extra = AdapterTrainer, {"metric": lambda: 0.0, "patience": 1}
    rows = encoded_rows(options.rows, options.batch * (options.steps + 1), model.config.vocab_size)
    trainer = trainer_type(
        model=model,
        args=arguments,
        processing_class=base.tokenizer(),
        train_dataset=Dataset.from_list(rows),
        data_collator=Collator(pad_token_id=0),
        callbacks=[Clock()],
        **extra,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return seconds, processor, tokens[: len(seconds)]


def floor_arm(options: argparse.Namespace) -> tuple[list[float], list[float], list[int]]:
    """Return the same of the products alone."""
    keep_freed_memory()
    model = FolderBase.at(options.base, dtype="auto").load(training=True).model
    head = model.get_output_embeddings()
    config, dtype = model.config, model.dtype
    weights = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    rows = encoded_rows(options.rows, options.batch, config.vocab_size)
    length = max(len(row["input_ids"]) for row in rows)
    tokens = options.batch * length
    trained = sum(label != IGNORED for row in rows for label in row["labels"])
    size = config.hidden_size // config.num_attention_heads
    groups = options.batch * config.num_key_value_heads
    stacked = config.num_attention_heads // config.num_key_value_heads * length

    def step() -> None:
        for weight in weights:
            x, gradient = (
                torch.ones(tokens, weight.shape[1], dtype=dtype),
                torch.ones(tokens, weight.shape[0], dtype=dtype),
            )
            a, b = torch.ones(RANK, weight.shape[1], dtype=dtype), torch.ones(weight.shape[0], RANK, dtype=dtype)
            inner = linear(x, a)
            linear(x, weight).addmm_(inner, b.T)
            inner_gradient = gradient @ b
            (gradient @ weight).addmm_(inner_gradient, a)
            inner_gradient.T @ x, gradient.T @ inner
        query, key = torch.ones(groups, stacked, size, dtype=dtype), torch.ones(groups, length, size, dtype=dtype)
        scores = torch.ones(groups, stacked, length, dtype=dtype)
        for _ in range(config.num_hidden_layers):  # two products forward, four backward
            for _ in range(2):
                torch.bmm(query, key.transpose(1, 2))
                torch.bmm(scores, key)
                torch.bmm(scores.transpose(1, 2), query)
        logits = linear(torch.ones(trained, config.hidden_size, dtype=dtype), head.weight)
        logits @ head.weight

    seconds, processor = [], []
    with torch.no_grad():
        for _ in range(options.steps + 1):
            began = time.perf_counter(), time.process_time()
            step()
            seconds.append(time.perf_counter() - began[0])
            processor.append(time.process_time() - began[1])
    return seconds, processor, [sum(len(row["input_ids"]) for row in rows)] * len(seconds)


def measure_here(arm: str, options: argparse.Namespace) -> dict[str, float]:
    """Run one arm in this process."""
    import resource

    with tempfile.TemporaryDirectory() as folder:
        seconds, processor, tokens = floor_arm(options) if arm == "floor" else train_arm(arm, options, folder)
    return {
        "wall": sum(tokens[1:]) / sum(seconds[1:]),
        "processor": sum(tokens[1:]) / sum(processor[1:]),
        "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def measure_in_child(arm: str) -> dict[str, float]:
    """Run one arm in a process of its own."""
    command = [sys.executable, *sys.argv, "--child", arm]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="a model folder")
    parser.add_argument("--rows", choices=sorted(ROWS), default="exercises")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arms", choices=ARMS, nargs="+", default=list(ARMS))
    parser.add_argument("--child", choices=ARMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure_here(options.child, options)))
        return
    rounds = []
    for number in range(options.rounds):
        rounds.append({arm: measure_in_child(arm) for arm in options.arms})
        print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
    print(f"{options.base}, {options.rows}, batch {options.batch}, {torch.get_num_threads()} threads")
    print(f"medians of {options.rounds} interleaved rounds of {options.steps} steps\n")
    print("| arm | tokens/s | tokens per processor second | of the floor | peak memory |\n|---|---:|---:|---:|---:|")
    medians = {
        arm: {name: statistics.median(found[arm][name] for found in rounds) for name in ("wall", "processor", "gib")}
        for arm in options.arms
    }
    for arm, found in medians.items():
        share = f"{found['processor'] / medians['floor']['processor']:.2f}" if "floor" in medians else ""
        print(f"| {arm} | {found['wall']:.0f} | {found['processor']:.0f} | {share} | {found['gib']:.1f} GiB |")


if __name__ == "__main__":
    main()
