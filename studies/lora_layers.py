"""Choice of layers, rank and learning rate: short trainings of each task's adapter, compared on the validation split.

    python studies/lora_layers.py [--tasks codegen docstring] [--tokens 40000] [--samples 100] [--only NAME …]

Every arm trains the same rows in the same order for the same number of tokens, with the profile's other settings, and
is evaluated once, at its end, on `--samples` validation samples. The arms on attention, MLP and all linear layers have
equally many parameters: the rank follows from the layers' shapes. `specified` is the project's specification: rank 4,
attention for code and MLP for docstrings, dropout 0.1. No test row is read. Run `dvc repro data-split` first.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bilora.bases.loading import shared_copy
from bilora.cli.progress import bar
from bilora.data.training_rows import read_training_rows
from bilora.library_logs import silence_libraries
from bilora.params import Adapter
from bilora.training.adapter import attach_adapter, count_trainable
from bilora.training.context import TrainingContext
from bilora.training.loading import load_for_training
from bilora.training.phases.sft import PHASE, SftSettings
from bilora.workspace import Workspace

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
RANK = 16
"""Rank of the arms on all linear layers; the ranks of other arms give the same number of parameters."""


@dataclass(frozen=True)
class Arm:
    """One training: its layers, learning rate, and rank (None: as many parameters as all linear layers at `RANK`)."""

    name: str
    layers: tuple[str, ...]
    learning_rate: float
    rank: int | None = None
    dropout: float = 0.0


class Options(argparse.Namespace):
    """The command's options."""

    tasks: list[str]
    tokens: int
    samples: int
    only: list[str]


def arms(task: str) -> list[Arm]:
    """Return the arms of a task."""
    linear_layers = ATTENTION + MLP
    return [
        Arm("attention", ATTENTION, 1e-3),
        Arm("MLP", MLP, 1e-3),
        Arm("all linear", linear_layers, 1e-3),
        Arm("all linear, half the rate", linear_layers, 5e-4),
        Arm("all linear, twice the rate", linear_layers, 2e-3),
        Arm("specified", ATTENTION if task == "codegen" else MLP, 2e-4, rank=4, dropout=0.1),
    ]


def equal_rank(model: PreTrainedModel, layers: Sequence[str]) -> int:
    """Return the rank at which LoRA on `layers` has as many parameters as on all linear layers at `RANK`."""

    def parameters_per_rank(names: Sequence[str]) -> int:
        shapes = (module.weight.shape for name, module in model.named_modules() if name.rpartition(".")[2] in names)
        return sum(outputs + inputs for outputs, inputs in shapes)

    return round(RANK * parameters_per_rank(ATTENTION + MLP) / parameters_per_rank(layers))


def settings_for(context: TrainingContext, arm: Arm, tokens: int) -> SftSettings:
    """Return the profile's first phase with the arm's learning rate, as many steps as `tokens` need, one evaluation."""
    phase = context.params.training.phases[0]
    if not isinstance(phase, SftSettings):
        raise SystemExit(f"{context.task.name}: the first phase is {phase.kind}, and this study trains sft.")
    rows = PHASE.prepare(context, phase).train.rows
    row_tokens = sum(len(row.input_ids) for row in rows) / len(rows)
    steps = max(1, round(tokens / (row_tokens * phase.batch_size * phase.accumulation)))
    return phase.model_copy(update={"steps": steps, "evaluate_every": steps, "learning_rate": arm.learning_rate})


def run(context: TrainingContext, arm: Arm, tokens: int) -> str:
    """Train one arm and return its line of the table."""
    rank = arm.rank or equal_rank(context.model, arm.layers)
    adapter = Adapter(rank=rank, alpha=2 * rank, dropout=arm.dropout, target_modules=list(arm.layers))
    settings = settings_for(context, arm, tokens)
    context = context.with_model(attach_adapter(context.model, adapter, seed=context.seed))
    with bar(f"{context.task.name}: {arm.name}", settings.steps, "steps") as progress:
        reporting = replace(context, on_step=lambda step: progress(1) if step.loss is not None else None)
        result = PHASE.run(reporting, settings, PHASE.prepare(reporting, settings))
    loss, score = result.metrics["validation_loss"], 100 * result.metric
    return (
        f"| {context.task.name} | {arm.name} | {rank} | {count_trainable(context.model) / 1e6:.2f} M | "
        f"{arm.learning_rate:g} | {result.tokens:,} | {loss:.3f} | {score:.1f} | {result.duration_s:.0f} |"
    )


def table_lines(workspace: Workspace, task: str, options: Options) -> Iterator[str]:
    """Yield the table's line of each arm."""
    rows = replace(read_training_rows(workspace, task, None), pairs=())
    loaded = load_for_training(workspace.base())
    for arm in arms(task):
        if options.only and arm.name not in options.only:
            continue
        copy = replace(loaded, model=shared_copy(loaded.model))
        with tempfile.TemporaryDirectory(prefix="bilora-arm-") as folder, workspace.sandbox() as sandbox:
            context = workspace.training_context(task, rows, copy, sandbox, on_step=lambda _: None)
            training = context.params.training.model_copy(update={"evaluate_samples": options.samples})
            params = context.params.model_copy(update={"training": training})
            yield run(replace(context, params=params, folder=Path(folder)), arm, options.tokens)


def main() -> None:
    """Run the arms and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["codegen", "docstring"])
    parser.add_argument("--tokens", type=int, default=40_000)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--only", nargs="+", default=[], help="names of arms")
    options = parser.parse_args(namespace=Options())
    workspace = Workspace(Path())
    silence_libraries()
    print("| task | layers | rank | trained | rate | tokens | validation loss | validation score | seconds |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for task in options.tasks:
        for line in table_lines(workspace, task, options):
            print(line, flush=True)
    print(f"base {workspace.base().id}, seed {workspace.params.seed}", file=sys.stderr)


if __name__ == "__main__":
    main()
