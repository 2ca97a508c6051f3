"""Ablations of the embedded base's recipe: bits per byte on held-out text.

    python studies/pretraining.py RECIPE --shipped             # the shipped model, xz and a 5-gram
    python studies/pretraining.py RECIPE --tokens 1200000 same layers=6 fill_ins=0.1 hidden=320,intermediate=880 ...

Each variant is the recipe with these values changed, trained from scratch with as many floating-point operations as
--tokens cost the recipe itself. Measured are the held-out packages; the summary of each documented function in them,
given the function; and the code of exercises with held-out compositions, given their statement. Bytes of the given
text are not counted.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import lzma
import math
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bilora.data.similarity import ngrams
from bilora.library_logs import silence_libraries
from bilora.pretraining.corpus import Document, build_corpus, documented_functions, source_texts
from bilora.pretraining.recipe import CorpusParams, Pretraining, read_pretraining
from bilora.pretraining.shards import held_out_texts, pack_documents
from bilora.pretraining.speed import flops_per_token
from bilora.pretraining.tokenizer import train_tokenizer
from bilora.pretraining.train import bits_per_byte, new_model, pretrain
from bilora.records import Split
from bilora.sources.exercises.generate import generate_exercises
from bilora.sources.packages import package_modules

SEED = 42
PAIRS = 300
ORDER = 5
RUN = 13
UNSEEN = 5000
Pair = tuple[str, str]


def summaries(recipe: Pretraining) -> list[Pair]:
    """Return documented functions of the held-out packages with their summaries."""
    found = [
        (f"{bare}\n\n# Summary:", f" {summary}\n")
        for name in sorted(recipe.corpus.held_out, key=str.lower)
        for text in source_texts(package_modules(name, "test"), recipe.corpus.max_file_chars)
        for _, bare, summary in documented_functions(text)
    ]
    return random.Random(SEED).sample(found, min(PAIRS, len(found)))


def programs(recipe: Pretraining) -> list[Pair]:
    """Return statements of exercises with held-out compositions and their code, named as in the corpus."""
    names = recipe.corpus.exercise_names
    rows = itertools.chain.from_iterable(
        itertools.islice(generate_exercises(tier, None, SEED, only="validation", names=names), PAIRS // 2)
        for tier in ("two", "three")
    )
    return [(f"# {row.text}\n", f"{row.code}\n") for row in rows]


def conditional_bits(model: Any, tokenizer: Any, pairs: Sequence[Pair]) -> float:
    """Return the mean bits per byte of the second texts, each given its first."""
    import torch

    bits = size = 0.0
    for first, second in pairs:
        known = tokenizer(first, add_special_tokens=False)["input_ids"]
        asked = tokenizer(second, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([known + asked])[:, -model.config.max_position_embeddings :]
        labels = ids.clone()
        labels[:, : ids.shape[1] - len(asked)] = -100
        with torch.inference_mode():
            bits += model(input_ids=ids, labels=labels, use_cache=False).loss.item() * len(asked) / math.log(2)
        size += len(second.encode())
    return bits / size


def copied_functions(recipe: Pretraining, documents: Sequence[Document]) -> str:
    """Report how many held-out functions share more than half of their word n-grams with the corpus."""
    held_out = [
        own
        for name in recipe.corpus.held_out
        for text in source_texts(package_modules(name, "test"), recipe.corpus.max_file_chars)
        for _, bare, _ in documented_functions(text)
        if (own := ngrams(bare, RUN))
    ]
    asked = frozenset[str]().union(*held_out)
    read = {gram for text in documents if isinstance(text, str) for gram in ngrams(text, RUN) & asked}
    near = sum(len(own & read) > len(own) / 2 for own in held_out)
    return f"{near} of {len(held_out):,} held-out functions share over half of their {RUN}-grams with the corpus"


def leaked_exercises(recipe: Pretraining, documents: Sequence[Document]) -> str:
    """Report how many exercises with held-out compositions, written as in the corpus, the documents contain."""
    marks = ' #"'  # around a comment or a docstring
    names = recipe.corpus.exercise_names
    unseen: dict[str, list[set[str]]] = defaultdict(list)
    held_out: tuple[Split, ...] = ("validation", "test")
    for tier, split in itertools.product(recipe.corpus.exercises, held_out):
        for row in itertools.islice(generate_exercises(tier, None, SEED, only=split, names=names), UNSEEN):
            unseen[row.text.strip(marks)].append(set(row.code.splitlines()))
    read = 0
    for text in documents:
        lines = set(text.splitlines()) if isinstance(text, str) else set()
        read += any(code <= lines for line in lines for code in unseen.get(line.strip(marks), ()))
    return f"{read} of {sum(map(len, unseen.values())):,} exercises with held-out compositions are in the corpus"


def ngram_bits(known: bytes, text: bytes) -> float:
    """Return bits per byte of `text` by a byte 5-gram of `known` (Witten & Bell 1991, interpolated down to uniform)."""
    chance = np.full(len(text), 1 / 256)
    for order in range(1, ORDER + 1):
        seen, times = np.unique(_grams(known, order), return_counts=True)
        histories, first, kinds = np.unique(seen >> 8, return_index=True, return_counts=True)
        totals = np.add.reduceat(times, first)
        asked = _grams(text, order)
        count = _looked_up(seen, times, asked)
        total, kind = (_looked_up(histories, values, asked >> 8) for values in (totals, kinds))
        place = slice(order - 1, None)
        mixed = (count + kind * chance[place]) / np.maximum(total + kind, 1)
        chance[place] = np.where(total > 0, mixed, chance[place])
    return float(-np.log2(chance).mean())


def _grams(text: bytes, order: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    data = np.frombuffer(text, dtype=np.uint8).astype(np.uint64)
    codes = np.zeros(len(data) - order + 1, dtype=np.uint64)
    for place in range(order):
        codes = codes << np.uint64(8) | data[place : len(data) - order + 1 + place]
    return codes


def _looked_up(keys: Any, values: Any, asked: Any) -> Any:
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[place] == asked, values[place], 0)


def changed(recipe: Pretraining, variant: str, tokens: int) -> Pretraining:
    """Return the recipe with a variant's values, read as YAML, in the section that has their name."""
    data = recipe.model_dump() | {"tokens": tokens}
    places = [data["architecture"], data["corpus"]["shares"], data["corpus"]["exercises"], data]
    for change in filter(None, variant.split(",")) if variant != "same" else ():
        key, _, value = change.partition("=")
        place = next((one for one in places if key in one), None)
        if place is None:
            raise SystemExit(f"{key!r} is none of {', '.join(sorted(itertools.chain(*places)))}.")
        place[key] = yaml.safe_load(value)
    return Pretraining.model_validate(data)


def trials(recipe: Pretraining, variants: Sequence[str], tokens: int, packages: Path | None) -> Iterator[str]:
    """Yield the rows of the table, one per variant."""
    yield "| variant | parameters | tokens | tokens/s | packages | summaries | exercises |"
    yield "|---|---:|---:|---:|---:|---:|---:|"

    @functools.lru_cache(maxsize=1)
    def corpus(json: str) -> list[Document]:
        return build_corpus(CorpusParams.model_validate_json(json), SEED, packages)[0]

    held_out = "\n".join(held_out_texts(recipe.corpus.held_out, recipe.corpus.max_file_chars))
    pairs = summaries(recipe), programs(recipe)
    for variant in variants:
        own = changed(recipe, variant, tokens)
        shape = own.architecture
        documents = corpus(own.corpus.model_dump_json())
        tokenizer = train_tokenizer((one for one in documents if isinstance(one, str)), shape.vocabulary, shape.context)
        packed = pack_documents(documents, tokenizer)
        costs = [flops_per_token(new_model(one, tokenizer, SEED), own.sequence) for one in (recipe.architecture, shape)]
        own = own.model_copy(update={"tokens": round(own.tokens * costs[0] / costs[1])})
        with tempfile.TemporaryDirectory() as work:
            done = pretrain(own, tokenizer, packed, seed=SEED, work=Path(work), log=lambda _: None)
        model = done.model.eval()
        bits = [
            bits_per_byte(model, tokenizer, held_out, own.sequence),
            *(conditional_bits(model, tokenizer, p) for p in pairs),
        ]
        size = sum(parameter.numel() for parameter in model.parameters())
        yield (
            f"| {variant} | {size:,} | {done.tokens:,} | {done.tokens / done.seconds:,.0f} | "
            + " | ".join(f"{b:.3f}" for b in bits)
            + " |"
        )


def shipped(recipe: Pretraining, folder: Path, packages: Path | None) -> Iterator[str]:
    """Yield the shipped model's numbers, and those of xz and a 5-gram on the same bytes."""
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    text = "\n".join(held_out_texts(recipe.corpus.held_out, recipe.corpus.max_file_chars))
    documents, _ = build_corpus(recipe.corpus, SEED, packages)
    known = "\n".join(one for one in documents if isinstance(one, str)).encode()
    data = text.encode()
    yield f"held-out packages, {len(data):,} bytes; bits per byte:"
    yield f"  {folder.name:8} {bits_per_byte(model, tokenizer, text, recipe.sequence):.3f}"
    yield f"  {ORDER}-gram   {ngram_bits(known, data):.3f}  over bytes, of the corpus of {len(known):,} bytes"
    yield f"  xz -9    {len(lzma.compress(data, preset=9)) * 8 / len(data):.3f}"
    yield copied_functions(recipe, documents)
    yield leaked_exercises(recipe, documents)
    yield f"summaries {conditional_bits(model, tokenizer, summaries(recipe)):.3f}"
    yield f"exercises {conditional_bits(model, tokenizer, programs(recipe)):.3f}"


def main() -> None:
    """Run the variants, or the shipped model, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("variants", nargs="*")
    parser.add_argument("--tokens", type=int, default=1_200_000)
    parser.add_argument("--shipped", action="store_true")
    parser.add_argument("--packages", type=Path, help="folder of the corpus's packages, as for bilora pretrain")
    chosen = parser.parse_intermixed_args()
    silence_libraries()
    recipe = read_pretraining(chosen.recipe)
    if chosen.shipped:
        lines = shipped(recipe, chosen.recipe.parent, chosen.packages)
    else:
        lines = trials(recipe, chosen.variants, chosen.tokens, chosen.packages)
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
