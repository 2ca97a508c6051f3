"""From a recipe to a model folder: corpus, tokenizer, training, held-out measure, card."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bilora.pretraining.corpus import build as build_corpus
from bilora.pretraining.corpus import source_texts, versions
from bilora.pretraining.recipe import Pretraining
from bilora.pretraining.tokenizer import train_tokenizer
from bilora.pretraining.train import bits_per_byte, pack, pretrain
from bilora.sources.installed import modules
from bilora.storage import read_json, sha256_bytes, sha256_json, write_json, write_text

HELD_OUT_CHARS = 60_000
MEANWHILE_CHARS = 8_000
TOKENIZER = "tokenizer"


def held_out_text(names: list[str], limit: int, chars: int = HELD_OUT_CHARS) -> str:
    """The beginning of every held-out package, in equal shares."""
    parts = []
    for name in sorted(names, key=str.lower):
        text = "\n".join(source_texts(modules(name, "test"), limit))
        parts.append(text[:chars])
    return "\n".join(parts)


def build_base(
    recipe: Pretraining, out: Path, *, seed: int, work: Path, log: Callable[[str], None], packages: Path | None = None
) -> dict[str, Any]:
    """Make the model folder `out` (weights in bf16 safetensors, tokenizer, card, manifest).

    The corpus's packages are looked for in the folder `packages` first, and then in this environment. `work` holds
    the packed tokens and the tokenizer, used again while recipe, seed and versions are the same, and the checkpoint
    that an interrupted run goes on from.
    """
    import torch

    work.mkdir(parents=True, exist_ok=True)
    tokenizer, tokens, manifest = _corpus(recipe, seed, work, packages, log)
    log(f"{len(tokens):,} tokens in the corpus")

    def held_out_bits(model: Any, chars: int) -> float:
        text = held_out_text(recipe.corpus.held_out, recipe.corpus.max_file_chars, chars)
        return bits_per_byte(model, tokenizer, text, recipe.sequence)

    done = pretrain(
        recipe, tokenizer, tokens, seed=seed, work=work, log=log,
        measure=lambda model: held_out_bits(model, MEANWHILE_CHARS),
    )  # fmt: skip
    done.model.eval()
    bits = held_out_bits(done.model, HELD_OUT_CHARS)
    done.model.to(torch.bfloat16).save_pretrained(out)
    shutil.copytree(work / TOKENIZER, out, dirs_exist_ok=True)  # loaded and saved again it would tell where it lay
    facts = {
        "parameters": sum(p.numel() for p in done.model.parameters()),
        "corpus_tokens": len(tokens),
        "corpus_sha256": sha256_bytes(tokens.tobytes()),
        "tokens_seen": done.tokens,
        "seconds": round(done.seconds),
        "tokens_per_s": round(done.tokens / done.seconds),
        "mfu": round(done.mfu, 3),
        "final_loss": round(done.loss, 4),
        "held_out_bits_per_byte": round(bits, 4),
        "seed": seed,
        "machine": f"{platform.system()} {platform.machine()}, OMP_NUM_THREADS={torch.get_num_threads()}"
        + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", CPU"),
        "torch": torch.__version__,
        "recipe": recipe.model_dump(),
        "corpus": manifest,
    }
    write_json(out / "manifest.json", facts)
    write_text(out / "README.md", _card(facts))
    return facts


def _corpus(
    recipe: Pretraining, seed: int, work: Path, packages: Path | None, log: Callable[[str], None]
) -> tuple[Any, Any, dict[str, Any]]:
    """Return tokenizer, packed tokens (mapped, read as training needs them) and the corpus's manifest."""
    import numpy as np
    from transformers import PreTrainedTokenizerFast

    shape, done = recipe.architecture, work / "corpus.json"
    named = [recipe.corpus.model_dump(), shape.vocabulary, shape.context, seed, versions(recipe.corpus, packages)]
    key = sha256_json(named)
    if not done.exists() or read_json(done)["key"] != key:
        done.unlink(missing_ok=True)
        log("reading the corpus")
        documents, manifest = build_corpus(recipe.corpus, seed, packages)
        log(f"{len(documents):,} documents; learning {shape.vocabulary:,} tokens")
        plain = (document for document in documents if isinstance(document, str))
        learned = train_tokenizer(plain, shape.vocabulary, shape.context)
        learned.save_pretrained(work / TOKENIZER)
        np.save(work / "tokens.npy", pack(documents, learned))
        write_json(done, {"key": key, "manifest": manifest})
    tokenizer = PreTrainedTokenizerFast.from_pretrained(work / TOKENIZER)
    return tokenizer, np.load(work / "tokens.npy", mmap_mode="r"), read_json(done)["manifest"]


def _card(facts: dict[str, Any]) -> str:
    shape, corpus = facts["recipe"]["architecture"], facts["corpus"]
    rows = "\n".join(
        f"| {p['name']} | {p['version']} | {', '.join(p['licences'])} | {p['files']} | {p['functions']} | {p['bytes']:,} |"
        for p in corpus["packages"]
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
| parameters | {facts["parameters"]:,} (hidden {shape["hidden"]}, {shape["layers"]} layers, {shape["heads"]} heads, vocabulary {shape["vocabulary"]:,}, context {shape["context"]}) |
| corpus | {facts["corpus_tokens"]:,} tokens, sha256 `{facts["corpus_sha256"][:16]}…` |
| tokens seen | {facts["tokens_seen"]:,} in {facts["seconds"] / 60:.0f} minutes, {facts["tokens_per_s"]:,} tokens/s, {facts["mfu"]:.0%} of what a large matrix product reaches there |
| final training loss | {facts["final_loss"]:.3f} |
| bits per byte on held-out packages | {facts["held_out_bits_per_byte"]:.3f} |
| machine | {facts["machine"]}, torch {facts["torch"]} |

Made by `bilora pretrain` from the recipe `pretrain.yaml` beside this file. The corpus: source files and documented
functions of the packages below, functions followed by their summary, {sum(corpus["exercises"].values()):,} generated exercises
of the train split in plain-function form, and short chats that hand over the beginning of some code and
get the rest. Left out: {", ".join(corpus["held_out"])}, and every exercise composition of the validation and test splits.

| package | version | licence | files | documented functions | bytes |
|---|---|---|---:|---:|---:|
{rows}
"""
