"""The verb pretrain."""

from __future__ import annotations

import functools
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
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of initialisation, corpus order and batches.")] = 42,
    corpus: Annotated[
        Path | None, typer.Option(help="Train on the corpus that --corpus-only made in this folder, here or elsewhere.")
    ] = None,
    corpus_only: Annotated[
        bool, typer.Option("--corpus-only", help="Make the corpus, in the folder --corpus if given, and stop.")
    ] = False,
) -> None:
    """Make an embedded base model from a recipe: hours on CPU, minutes on a GPU; resumes when interrupted."""
    from bilora.cli.progress import bar
    from bilora.library_logs import silence_libraries
    from bilora.pretraining import shards
    from bilora.pretraining.build import build_base
    from bilora.pretraining.recipe import read_pretraining
    from bilora.pretraining.train import CHECKPOINT
    from bilora.workspace import Workspace

    ready_made = corpus is not None and not corpus_only
    if ready_made and packages:
        raise typer.BadParameter("--packages is of no use with a --corpus that is read as it is.")
    chosen = read_pretraining(recipe)
    silence_libraries()
    workspace = Workspace(Path())
    work = workspace.checkpoints("pretrain") / recipe.parent.name
    folder = corpus or work
    log = functools.partial(print, flush=True)
    if ready_made:
        own = shards.load_shards(chosen, folder, seed=seed)
    else:
        bars = functools.partial(bar, unit="sources")
        own = shards.make_shards(chosen, folder, seed=seed, packages=packages, log=log, bars=bars)
    if corpus_only:
        print(f"pretrain: {len(own.tokens):,} tokens, sha256 {own.sha256[:16]}…, in {folder}")
        return
    manifest = build_base(chosen, own, out or recipe.parent, seed=seed, work=work, log=log)
    if ready_made:  # it is kept: the corpus may be used again
        (work / CHECKPOINT).unlink(missing_ok=True)
    else:
        shutil.rmtree(work)
    print(
        f"pretrain: {manifest.parameters:,} parameters, loss {manifest.final_loss}, "
        f"{manifest.held_out_bits_per_byte} bits per byte on held-out packages"
    )
