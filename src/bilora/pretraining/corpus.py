"""What the embedded base reads: documents from installed packages and generated exercises.

Every documented function is read followed by its summary in a comment. By the recipe's shares there are also
whole source files, functions with their docstring in its place, and chats in which a person hands over some code
and gets the rest of it, or a line that is missing: so the chat tokens mean something before any adapter is trained.
Held-out packages and held-out compositions never enter.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import random
import re
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bilora.errors import BadData
from bilora.pretraining.recipe import CorpusParams
from bilora.protocols import Progress, no_progress
from bilora.sources.exercises import Tier, exercises
from bilora.sources.installed import Module, generated, modules, read
from bilora.sources.names import Names

SPDX = {
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd license": "BSD",
    "mit license": "MIT",
    "python software foundation license": "PSF-2.0",
}
CHARS_PER_FUNCTION = (60, 1200)


def licence_ids(terms: str) -> set[str]:
    """Return the SPDX ids in the licence that a package states; every alternative counts."""
    names = re.split(r" (?:AND|OR|WITH) ", terms.replace("(", " ").replace(")", " "))
    return {SPDX.get(name.strip().lower(), name.strip()) for name in names if name.strip()}


def source_texts(files: list[Module], limit: int) -> Iterator[str]:
    """Yield the text of each file of 200 to `limit` characters that a person wrote."""
    for module in files:
        text = read(module)
        if text is not None and 200 < len(text) <= limit and not generated(text):
            yield text


def documented_functions(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield (source, source without docstring, summary) of each documented function."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError):
            return
    lines = text.splitlines()
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or len(node.body) < 2:
            continue
        documented = ast.get_docstring(node)
        if not documented:
            continue
        first = node.body[0]
        start, indent = node.lineno - 1, node.col_offset
        body = [line[indent:] for line in lines[start : node.end_lineno]]
        low, high = first.lineno - 1 - start, (first.end_lineno or first.lineno) - start
        bare = body[:low] + body[high:]
        summary = " ".join(documented.split("\n\n")[0].split())
        source = "\n".join(body)
        if CHARS_PER_FUNCTION[0] < len("\n".join(bare)) < CHARS_PER_FUNCTION[1] and 15 < len(summary) < 300:
            yield source, "\n".join(bare), summary


def _continuation(text: str, rng: random.Random) -> list[dict[str, str]] | None:
    lines = text.splitlines()
    if not 4 <= len(lines) <= 40:
        return None
    cut = rng.randint(2, len(lines) - 1)
    head, rest = "\n".join(lines[:cut]), "\n".join(lines[cut:])
    return [
        {"role": "user", "content": f"Continue this Python code.\n```python\n{head}\n```"},
        {"role": "assistant", "content": f"```python\n{rest}\n```"},
    ]


def _fill_in(text: str, rng: random.Random) -> list[dict[str, str]] | None:
    lines = text.splitlines()
    inside = [place for place, line in enumerate(lines) if place and line.strip()]
    if len(inside) < 3 or len(lines) > 40:
        return None
    place = rng.choice(inside)
    missing = lines[place]
    lines[place] = f"{missing[: len(missing) - len(missing.lstrip())]}# a line is missing here"
    code = "\n".join(lines)
    return [
        {"role": "user", "content": f"Write the missing line.\n```python\n{code}\n```"},
        {"role": "assistant", "content": f"```python\n{missing}\n```"},
    ]


def exercise_text(row: dict[str, Any], rng: random.Random) -> str:
    tests = "\n".join(row["test_list"][: rng.randint(1, 3)])
    code: str = row["code"]
    if rng.random() < 0.5:
        return f"# {row['text']}\n{code}\n\n{tests}\n"
    if rng.random() < 0.5:
        return f"# {row['text']}\n# For example: {row['test_list'][0].removeprefix('assert ')}\n{code}\n"
    head, colon, body = code.rpartition("\ndef ")
    signature, _, rest = body.partition("\n") if colon else code.partition("\n")
    prefix = f"{head}\ndef " if colon else ""
    return f'{prefix}{signature}\n    """{row["text"]}"""\n{rest}\n\n{tests}\n'


def _exercises(tier: Tier, count: int, seed: int, names: Names) -> list[dict[str, Any]]:
    """Make `count` exercises: other phrasings and tests of the same compositions once all had a turn."""
    rows = (row for number in itertools.count(seed) for row in exercises(tier, None, number, only="train", names=names))
    return list(itertools.islice(rows, count))


Document = str | list[dict[str, str]]
"""Plain text, or a chat that the template renders."""


def versions(params: CorpusParams, folder: Path | None = None) -> dict[str, str]:
    """Return the version of each package that would be read.

    Raises:
        BadData: as `build` does.
    """
    return {name: _permitted(name, params, folder)[0].version for name in _named(params)}


def _named(params: CorpusParams) -> list[str]:
    return sorted(set(params.packages) - set(params.held_out), key=str.lower)


def _permitted(name: str, params: CorpusParams, folder: Path | None) -> list[Module]:
    own = modules(name, "train", folder)
    licences = licence_ids(own[0].licence) if own else set()
    if not licences or not licences <= set(params.licences):
        raise BadData(name, f"its licence ({', '.join(sorted(licences)) or 'unknown'}) is not on the list.")
    return own


def sources(params: CorpusParams) -> int:
    """Return how many times `build` tells its progress: for each package and each tier of exercises."""
    return len(_named(params)) + len(params.exercises)


def build(
    params: CorpusParams, seed: int, folder: Path | None = None, *, progress: Progress = no_progress
) -> tuple[list[Document], dict[str, Any]]:
    """Return all documents in training order and the manifest of what went in.

    Packages are looked for in `folder` first, where one is given, and then in this environment.

    Raises:
        BadData: a package is not installed, or its licence is not on the list.
    """
    rng, shares = random.Random(seed), params.shares
    documents: list[Document] = []
    packages: list[dict[str, Any]] = []
    seen: set[bytes] = set()

    def fresh(text: str) -> bool:
        digest = hashlib.sha256(" ".join(text.split()).encode("utf-8", "replace")).digest()
        return not (digest in seen or seen.add(digest))  # type: ignore[func-returns-value]

    def chats(code: str) -> Iterator[Document]:
        for share, form in ((shares.continuations, _continuation), (shares.fill_ins, _fill_in)):
            if share and rng.random() < share and (chat := form(code, rng)):
                yield chat

    own_files = {name: _permitted(name, params, folder) for name in _named(params)}
    pool = ProcessPoolExecutor(mp_context=get_context("spawn"))
    made = [
        pool.submit(_exercises, tier, count, seed, params.exercise_names) for tier, count in params.exercises.items()
    ]
    for name in params.held_out:  # what others copied from them must not enter either
        for text in source_texts(modules(name, "test"), params.max_file_chars):
            fresh(text)
            for _, bare, _ in documented_functions(text):
                fresh(bare)
    for name, own in own_files.items():
        files = functions = size = 0
        for text in source_texts(own, params.max_file_chars):
            if not fresh(text):
                continue
            files, size = files + 1, size + len(text.encode())
            if rng.random() < shares.whole_files:
                documents.append(text[:6000])
            for source, bare, summary in documented_functions(text):
                if not fresh(bare):
                    continue
                functions += 1
                documents.append(f"{bare}\n\n# Summary: {summary}\n")
                if rng.random() < shares.docstring_first:
                    documents.append(source)
                documents.extend(chats(bare))
        packages.append(
            {"name": name, "version": own[0].version, "licences": sorted(licence_ids(own[0].licence)),
             "files": files, "functions": functions, "bytes": size}
        )  # fmt: skip
        progress(1)
    for one in made:
        for row in one.result():
            documents.append(exercise_text(row, rng))
            documents.extend(chats(row["code"]))
        progress(1)
    pool.shutdown()
    rng.shuffle(documents)
    manifest = {
        "packages": packages,
        "held_out": sorted(params.held_out),
        "exercises": params.exercises,
        "documents": len(documents),
    }
    return documents, manifest
