"""From shards to a model folder: training, held-out measure, card."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bilora.pretraining.corpus import CorpusManifest
from bilora.pretraining.recipe import Pretraining
from bilora.pretraining.shards import Shards
from bilora.pretraining.train import bits_per_byte, pretrain
from bilora.records import Record
from bilora.storage import write_json, write_text
from bilora.tracking.provenance import hardware

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHECKPOINT_MEASURE_CHARS = 8_000
"""Of each held-out package, for the measure that is logged with each checkpoint."""


class BaseManifest(Record):
    """How a base was made, as its manifest.json says it; the sizes are in tokens, `mfu` is a share of the peak."""

    parameters: int
    corpus_tokens: int
    corpus_sha256: str
    tokens_seen: int
    seconds: int
    tokens_per_s: int
    mfu: float
    final_loss: float
    held_out_bits_per_byte: float
    seed: int
    machine: str
    torch: str
    recipe: Pretraining
    corpus: CorpusManifest


def build_base(
    recipe: Pretraining, shards: Shards, out: Path, *, seed: int, work: Path, log: Callable[[str], None]
) -> BaseManifest:
    """Make the model folder `out`: weights in bf16 safetensors, tokenizer, card, manifest.

    The folder `work` holds the checkpoint from which an interrupted run continues.
    """
    import torch

    work.mkdir(parents=True, exist_ok=True)
    log(f"{len(shards.tokens):,} tokens in the corpus")

    def held_out_bits(model: PreTrainedModel, chars: int | None = None) -> float:
        text = "\n".join(text[:chars] for text in shards.held_out)
        return bits_per_byte(model, shards.tokenizer, text, recipe.sequence)

    trained = pretrain(
        recipe,
        shards.tokenizer,
        shards.tokens,
        seed=seed,
        work=work,
        log=log,
        measure=lambda model: held_out_bits(model, CHECKPOINT_MEASURE_CHARS),
    )
    trained.model.eval()
    bits = held_out_bits(trained.model)
    trained.model.to(torch.bfloat16).save_pretrained(out)
    shutil.copytree(shards.saved, out, dirs_exist_ok=True)  # loaded and saved again it would contain its path
    manifest = BaseManifest(
        parameters=sum(p.numel() for p in trained.model.parameters()),
        corpus_tokens=len(shards.tokens),
        corpus_sha256=shards.sha256,
        tokens_seen=trained.tokens,
        seconds=round(trained.seconds),
        tokens_per_s=round(trained.tokens / trained.seconds),
        mfu=round(trained.mfu, 3),
        final_loss=round(trained.loss, 4),
        held_out_bits_per_byte=round(bits, 4),
        seed=seed,
        machine=_machine(),
        torch=torch.__version__,
        recipe=recipe,
        corpus=shards.manifest,
    )
    write_json(out / "manifest.json", manifest.model_dump(mode="json"))
    write_text(out / "README.md", _card(manifest))
    return manifest


def _machine() -> str:
    """Name all that decides in which order numbers are summed, so on which machines the same bytes come out."""
    import torch

    own, can = hardware(), torch.cpu.get_capabilities()
    units = [name for name in ("amx_bf16", "avx512_bf16") if can.get(name)]
    processor = f"{own['processor']} ({', '.join(units) or 'no 16-bit units'})"
    device = "CPU" if own["gpu"] == "none" else own["gpu"]
    return f"{own['system']}, {processor}, OMP_NUM_THREADS={torch.get_num_threads()}, {device}"


def _card(base: BaseManifest) -> str:
    shape, corpus = base.recipe.architecture, base.corpus
    rows = "\n".join(
        f"| {p.name} | {p.version} | {', '.join(p.licences)} | {p.files} | {p.functions} | {p.bytes:,} |"
        for p in corpus.packages
    )
    return f"""---
license: mit
library_name: transformers
pipeline_tag: text-generation
language: [en, code]
---
# The embedded base

A small Phi-3-architecture model with fused projections and Phi-3's chat tokens, made from scratch so
that the whole adapter pipeline runs on any machine. It writes plausible Python and little else: it is
here to be fine-tuned and measured, not to be used alone.

| | |
|---|---|
| parameters | {base.parameters:,} (hidden {shape.hidden}, {shape.layers} layers, {shape.heads} heads, vocabulary {shape.vocabulary:,}, context {shape.context}) |
| corpus | {base.corpus_tokens:,} tokens, sha256 `{base.corpus_sha256[:16]}…` |
| tokens seen | {base.tokens_seen:,} in {base.seconds / 60:.0f} minutes, {base.tokens_per_s:,} tokens/s, {base.mfu:.0%} of what a large matrix product reaches there |
| final training loss | {base.final_loss:.3f} |
| bits per byte on held-out packages | {base.held_out_bits_per_byte:.3f} |
| machine | {base.machine}, torch {base.torch} |

Made by `bilora pretrain` from the recipe `pretrain.yaml` beside this file. The corpus: source files and documented
functions of the packages below, functions followed by their summary, {sum(corpus.exercises.values()):,} generated exercises
of the train split in plain-function form, and short chats that hand over the beginning of some code and
get the rest. Left out: {", ".join(corpus.held_out)}, and every exercise composition of the validation and test splits.

| package | version | licence | files | documented functions | bytes |
|---|---|---|---:|---:|---:|
{rows}
"""
