"""What pre-training reads of a corpus: packed tokens, the tokenizer that made them, and text to be measured on.

They are made where the packages are and lie in a folder of their own, so that training can happen on a machine that
has no packages and no network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bilora.bases.prompt import encode_chat, encode_texts
from bilora.errors import BadData
from bilora.pretraining.corpus import Document, build, source_texts, sources, versions
from bilora.pretraining.recipe import Pretraining
from bilora.pretraining.tokenizer import train_tokenizer
from bilora.protocols import ProgressBars, no_bar
from bilora.sources.installed import modules
from bilora.storage import read_json, sha256_bytes, sha256_json, write_json

HELD_OUT_CHARS = 60_000
TOKENIZER = "tokenizer"
TOKENS = "tokens.npy"
FACTS = "corpus.json"


@dataclass(frozen=True)
class Shards:
    """A corpus, ready to train on: `tokens` has shape (tokens,) and is mapped, so read as training needs it.

    `sha256` is of their bytes. The tokenizer lies in the folder `saved`; `held_out` has the beginning of each held-out
    package.
    """

    tokens: np.ndarray[Any, np.dtype[np.uint16]]
    sha256: str
    tokenizer: Any
    saved: Path
    held_out: list[str]
    manifest: dict[str, Any]


def pack(documents: list[Document], tokenizer: Any) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Return all documents as one run of token ids, shape (tokens,), each ending in the end-of-text token."""
    texts = iter(encode_texts(tokenizer, [document for document in documents if isinstance(document, str)]))
    rows = (
        [*next(texts), tokenizer.eos_token_id] if isinstance(document, str) else encode_chat(tokenizer, document)
        for document in documents
    )
    return np.fromiter((token for row in rows for token in row), dtype=np.uint16)


def held_out_texts(names: list[str], limit: int) -> list[str]:
    """Return the beginning of every held-out package, read from files of up to `limit` characters."""
    texts = ("\n".join(source_texts(modules(name, "test"), limit)) for name in sorted(names, key=str.lower))
    return [text[:HELD_OUT_CHARS] for text in texts]


def make(
    recipe: Pretraining,
    folder: Path,
    *,
    seed: int,
    packages: Path | None,
    log: Callable[[str], None],
    bars: ProgressBars = no_bar,
) -> Shards:
    """Make the recipe's shards in `folder`, or read them if they were made there of the same packages.

    Packages are looked for in the folder `packages` first, where one is given, and then in this environment.

    Raises:
        BadData: a package is not installed, or its licence is not on the list.
    """
    own = {"recipe": _identity(recipe, seed), "versions": versions(recipe.corpus, packages)}
    facts = folder / FACTS
    if not facts.exists() or not own.items() <= read_json(facts).items():
        folder.mkdir(parents=True, exist_ok=True)
        facts.unlink(missing_ok=True)
        log("reading the corpus")
        with bars("corpus", sources(recipe.corpus)) as progress:
            documents, manifest = build(recipe.corpus, seed, packages, progress=progress)
        shape = recipe.architecture
        log(f"{len(documents):,} documents; learning {shape.vocabulary:,} tokens")
        plain = (document for document in documents if isinstance(document, str))
        tokenizer = train_tokenizer(plain, shape.vocabulary, shape.context)
        tokenizer.save_pretrained(folder / TOKENIZER)
        tokens = pack(documents, tokenizer)
        np.save(folder / TOKENS, tokens)
        held_out = held_out_texts(recipe.corpus.held_out, recipe.corpus.max_file_chars)
        digest = sha256_bytes(tokens.tobytes())
        write_json(facts, {**own, "sha256": digest, "manifest": manifest, "held_out": held_out})
    return read(recipe, folder, seed=seed)


def read(recipe: Pretraining, folder: Path, *, seed: int) -> Shards:
    """Read the shards that were made in `folder`, here or elsewhere; no package needs to be here.

    Raises:
        BadData: there are none, they are damaged, or they belong to another recipe or seed.
    """
    from transformers import PreTrainedTokenizerFast

    facts = read_json(folder / FACTS)
    if facts.get("recipe") != _identity(recipe, seed):
        raise BadData(folder, "was made from another recipe or seed; make it anew with --corpus-only.")
    path, saved = folder / TOKENS, folder / TOKENIZER
    try:
        tokens = np.load(path, mmap_mode="r")
        whole = sha256_bytes(tokens.tobytes()) == facts["sha256"]
    except (OSError, ValueError):
        whole = False
    if not whole:
        raise BadData(path, f"is not the whole file that {FACTS} tells of; copy the folder again or delete it.")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(saved)
    return Shards(tokens, facts["sha256"], tokenizer, saved, facts["held_out"], facts["manifest"])


def _identity(recipe: Pretraining, seed: int) -> str:
    shape = recipe.architecture
    return sha256_json([recipe.corpus.model_dump(), shape.vocabulary, shape.context, seed])
