"""Training speed on this machine: TRL with PEFT as they come, 32-bit plain, and ours, beside the floor.

    python perf/training.py --base FOLDER [--rows exercises|docstrings|mbpp|full-1024|full-4096] [--batch 8] [--steps 8]
                            [--rounds 3] [--arms trl plain32 ours pair joint eight floor]

Every arm of every round is a process of its own, so that its peak memory is its own; rounds are interleaved, so that a
slowdown of the machine affects all arms alike. Tokens are those of the rows, prompts included and padding excluded;
the first step of each adapter is not timed. `trl` has TRL's defaults, bf16 autocast and gradient checkpointing among
them. `pair` trains two adapters one after the other on one loaded base, `joint` the same two together, `eight` eight.
`floor` is only what must be multiplied, in the precision of `ours`: base, LoRA, attention, and the head on trained
tokens.
Processor seconds are those of all threads; they count where other programs use the machine too.
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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import linear

from bilora.bases.kinds.folder import FolderBase
from bilora.inference.memory import keep_freed_memory
from bilora.params import Adapter
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


def adapted(model: Any, *, plain: bool) -> Any:
    """Return the base with an adapter on all linear layers but the head; `plain` is PEFT's own."""
    from peft import LoraConfig, get_peft_model

    from bilora.training.adapter import attach

    targets = layers_of(model, "all")
    if plain:
        config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets, task_type="CAUSAL_LM")
        return get_peft_model(model, config)
    return attach(model, Adapter(rank=RANK, alpha=2 * RANK, dropout=0.0, target_modules=targets), seed=1)


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
            ends.append((time.perf_counter(), time.process_time()))

    class Collator(DataCollatorForLanguageModeling):  # type: ignore[misc]
        def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
            tokens.append(sum(len(row["input_ids"]) for row in examples))
            batch: dict[str, Any] = super().torch_call(examples)
            return batch

    ours = arm not in ("trl", "plain32")
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
    trainer_type: Callable[..., Any] = AdapterTrainer if ours else SFTTrainer
    rows = encoded_rows(options.rows, options.batch * (options.steps + 1), model.config.vocab_size)
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

    ours = arm not in ("trl", "plain32")
    base = FolderBase.at(options.base, dtype="auto" if ours else "float32")
    if arm != "trl":
        keep_freed_memory()
    loaded, tokenizer = base.load(training=True).model, base.tokenizer()
    models = [adapted(shared_copy(loaded), plain=not ours) for _ in range(ADAPTERS.get(arm, 1))]
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
    """Return the same of the products alone."""
    keep_freed_memory()
    model = FolderBase.at(options.base, dtype="auto").load(training=True).model
    head = model.get_output_embeddings()
    config, dtype = model.config, model.dtype
    weights = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    rows = encoded_rows(options.rows, options.batch, config.vocab_size)
    tokens = sum(len(row["input_ids"]) for row in rows)
    length = tokens // options.batch
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
    made = options.steps * sum(len(row["input_ids"]) for row in rows)
    return {"wall": made / sum(seconds[1:]), "processor": made / sum(processor[1:])}


def measure_here(arm: str, options: argparse.Namespace) -> dict[str, float]:
    """Run one arm in this process."""
    import resource

    with tempfile.TemporaryDirectory() as folder:
        found = floor_arm(options) if arm == "floor" else train_arm(arm, options, folder)
    return {**found, "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


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
    parser.add_argument("--steps", type=int, default=8)
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
