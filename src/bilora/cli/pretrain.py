"""The verb pretrain."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer


def pretrain(
    recipe: Annotated[Path, typer.Argument(help="A recipe such as models/nano/pretrain.yaml.")],
    out: Annotated[Path | None, typer.Option(help="Model folder to write; default: the recipe's own.")] = None,
    packages: Annotated[
        Path | None, typer.Option(help="Where `pip install --target` put packages of the corpus; else those here.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of initialisation, corpus order and batches.")] = 42,
) -> None:
    """Make an embedded base model from a recipe: hours on CPU, minutes on a GPU; resumes when interrupted."""
    from bilora.cli import wiring
    from bilora.pretraining.build import build_base
    from bilora.pretraining.recipe import read_pretraining

    chosen = read_pretraining(recipe)
    wiring.quiet_libraries()
    work = wiring.CHECKPOINTS / "pretrain" / recipe.parent.name
    facts = build_base(
        chosen, out or recipe.parent, seed=seed, work=work, log=lambda line: print(line, flush=True), packages=packages
    )
    shutil.rmtree(work)
    print(
        f"pretrain: {facts['parameters']:,} parameters, loss {facts['final_loss']}, "
        f"{facts['held_out_bits_per_byte']} bits per byte on held-out packages"
    )
