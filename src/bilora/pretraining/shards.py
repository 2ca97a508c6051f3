"""What pre-training reads of a corpus: packed tokens, their tokenizer, and held-out text to measure on.

They are built where the packages are installed, in a folder of their own, so that training can happen on a machine
that has no packages and no network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bilora.bases.prompt import encode_chat, encode_texts
from bilora.errors import BadData
from bilora.pretraining.corpus import (
    CorpusManifest,
    Document,
    build_corpus,
    corpus_versions,
    progress_steps,
    source_texts,
)
from bilora.pretraining.recipe import Pretraining
from bilora.pretraining.tokenizer import train_tokenizer
from bilora.protocols import ProgressBars, no_bar
from bilora.records import Record
from bilora.sources.packages import package_modules
from bilora.storage import read_record, sha256_bytes, sha256_json, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

HELD_OUT_CHARS = 60_000
TOKENIZER_FOLDER = "tokenizer"
TOKENS_FILE = "tokens.npy"
FACTS_FILE = "corpus.json"


class CorpusFacts(Record):
    """What corpus.json says of the shards beside it: what they were made from, and the hash of the tokens."""

    recipe: str
    versions: dict[str, str]
    sha256: str
    manifest: CorpusManifest
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class Shards:
    """A corpus, ready to train on: `tokens` has shape (tokens,) and is memory-mapped.

    `sha256` is of their bytes. The tokenizer is in the folder `saved`; `held_out` has the beginning of each held-out
    package.
    """

    tokens: NDArray[np.uint16]
    sha256: str
    tokenizer: PreTrainedTokenizerFast
    saved: Path
    held_out: tuple[str, ...]
    manifest: CorpusManifest


def pack_documents(documents: list[Document], tokenizer: PreTrainedTokenizerFast) -> NDArray[np.uint16]:
    """Return all documents as one run of token ids, shape (tokens,), each ending in the end-of-text token."""
    texts = iter(encode_texts(tokenizer, [document for document in documents if isinstance(document, str)]))
    rows = (
        [*next(texts), tokenizer.eos_token_id] if isinstance(document, str) else encode_chat(tokenizer, document)
        for document in documents
    )
    return np.fromiter((token for row in rows for token in row), dtype=np.uint16)


def held_out_texts(names: list[str], limit: int) -> tuple[str, ...]:
    """Return the beginning of every held-out package, read from files of up to `limit` characters."""
    texts = ("\n".join(source_texts(package_modules(name, "test"), limit)) for name in sorted(names, key=str.lower))
    return tuple(text[:HELD_OUT_CHARS] for text in texts)


def make_shards(
    recipe: Pretraining,
    folder: Path,
    *,
    seed: int,
    packages: Path | None,
    log: Callable[[str], None],
    bars: ProgressBars = no_bar,
) -> Shards:
    """Build the recipe's shards in `folder`, or load them if they were built there from the same packages.

    Args:
        packages: a folder that is searched for packages first, and then this environment.

    Raises:
        BadData: a package is not installed, or its licence is not on the list.
    """
    versions = corpus_versions(recipe.corpus, packages)
    path = folder / FACTS_FILE
    if not _built_from(path, _identity(recipe, seed), versions):
        folder.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        # 1) Read the documents.
        log("reading the corpus")
        with bars("corpus", progress_steps(recipe.corpus)) as progress:
            documents, manifest = build_corpus(recipe.corpus, seed, packages, progress=progress)
        # 2) Train the tokenizer on them.
        shape = recipe.architecture
        log(f"{len(documents):,} documents; learning {shape.vocabulary:,} tokens")
        texts = (document for document in documents if isinstance(document, str))
        tokenizer = train_tokenizer(texts, shape.vocabulary, shape.context)
        tokenizer.save_pretrained(folder / TOKENIZER_FOLDER)
        # 3) Write the tokens, and last the facts, which make the folder valid.
        tokens = pack_documents(documents, tokenizer)
        np.save(folder / TOKENS_FILE, tokens)
        facts = CorpusFacts(
            recipe=_identity(recipe, seed),
            versions=versions,
            sha256=sha256_bytes(tokens.tobytes()),
            manifest=manifest,
            held_out=held_out_texts(recipe.corpus.held_out, recipe.corpus.max_file_chars),
        )
        write_json(path, facts.model_dump(mode="json"))
    return load_shards(recipe, folder, seed=seed)


def _built_from(path: Path, recipe: str, versions: dict[str, str]) -> bool:
    if not path.exists():
        return False
    facts = read_record(path, CorpusFacts)
    return facts.recipe == recipe and facts.versions == versions


def load_shards(recipe: Pretraining, folder: Path, *, seed: int) -> Shards:
    """Load the shards in `folder`, built here or elsewhere; no package needs to be installed.

    Raises:
        BadData: there are none, they are damaged, or they belong to another recipe or seed.
    """
    from transformers import PreTrainedTokenizerFast

    facts = read_record(folder / FACTS_FILE, CorpusFacts)
    if facts.recipe != _identity(recipe, seed):
        raise BadData(folder, "was built from another recipe or seed; build it again with --corpus-only.")
    path, saved = folder / TOKENS_FILE, folder / TOKENIZER_FOLDER
    try:
        tokens = np.load(path, mmap_mode="r")
        whole = sha256_bytes(tokens.tobytes()) == facts.sha256
    except (OSError, ValueError):
        whole = False
    if not whole:
        raise BadData(path, f"is not the whole file that {FACTS_FILE} describes; copy the folder again or delete it.")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(saved)
    return Shards(tokens, facts.sha256, tokenizer, saved, facts.held_out, facts.manifest)


def _identity(recipe: Pretraining, seed: int) -> str:
    shape = recipe.architecture
    return sha256_json([recipe.corpus.model_dump(), shape.vocabulary, shape.context, seed])
