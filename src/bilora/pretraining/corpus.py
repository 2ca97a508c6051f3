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

from bilora.errors import BadData
from bilora.pretraining.recipe import CorpusParams
from bilora.protocols import Progress, no_progress
from bilora.records import Record
from bilora.sources.exercises.compositions import Tier
from bilora.sources.exercises.generate import Exercise, generate_exercises
from bilora.sources.exercises.names import NameStyle
from bilora.sources.packages import Module, is_generated, package_modules, read_module

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
MAX_FILE_DOCUMENT_CHARS = 6000


def licence_ids(terms: str) -> set[str]:
    """Return the SPDX ids in the licence that a package states; every alternative counts."""
    names = re.split(r" (?:AND|OR|WITH) ", terms.replace("(", " ").replace(")", " "))
    return {SPDX.get(name.strip().lower(), name.strip()) for name in names if name.strip()}


def source_texts(files: list[Module], limit: int) -> Iterator[str]:
    """Yield the text of each file of 200 to `limit` characters that a person wrote."""
    for module in files:
        text = read_module(module)
        if text is not None and 200 < len(text) <= limit and not is_generated(text):
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


def exercise_text(exercise: Exercise, rng: random.Random) -> str:
    """Return an exercise as one of three forms of plain text: the statement in a comment or as the docstring."""
    code, statement = exercise.code, exercise.text
    tests = "\n".join(exercise.test_list[: rng.randint(1, 3)])
    if rng.random() < 0.5:
        return f"# {statement}\n{code}\n\n{tests}\n"
    if rng.random() < 0.5:
        return f"# {statement}\n# For example: {exercise.test_list[0].removeprefix('assert ')}\n{code}\n"
    head, colon, body = code.rpartition("\ndef ")
    signature, _, rest = body.partition("\n") if colon else code.partition("\n")
    prefix = f"{head}\ndef " if colon else ""
    return f'{prefix}{signature}\n    """{statement}"""\n{rest}\n\n{tests}\n'


def recipe_exercises(tier: Tier, count: int, seed: int, names: NameStyle) -> list[Exercise]:
    """Return `count` exercises: other phrasings and tests of the same compositions once all were used."""
    seeds = itertools.count(seed)
    exercises = (one for number in seeds for one in generate_exercises(tier, None, number, only="train", names=names))
    return list(itertools.islice(exercises, count))


Document = str | list[dict[str, str]]
"""Plain text, or a chat that the template renders."""


class PackageFacts(Record):
    """What the corpus took from one package."""

    name: str
    version: str
    licences: tuple[str, ...]
    files: int
    functions: int
    bytes: int


class CorpusManifest(Record):
    """What a corpus was built from, and how many documents it has."""

    packages: tuple[PackageFacts, ...]
    held_out: tuple[str, ...]
    exercises: dict[Tier, int]
    documents: int


def corpus_versions(params: CorpusParams, folder: Path | None = None) -> dict[str, str]:
    """Return the version of each package that would be read.

    Raises:
        BadData: as `build_corpus` does.
    """
    return {name: _permitted(name, params, folder)[0].version for name in _named(params)}


def _named(params: CorpusParams) -> list[str]:
    return sorted(set(params.packages) - set(params.held_out), key=str.lower)


def _permitted(name: str, params: CorpusParams, folder: Path | None) -> list[Module]:
    own = package_modules(name, "train", folder)
    licences = licence_ids(own[0].licence) if own else set()
    if not licences or not licences <= set(params.licences):
        raise BadData(name, f"its licence ({', '.join(sorted(licences)) or 'unknown'}) is not on the list.")
    return own


def progress_steps(params: CorpusParams) -> int:
    """Return how often `build_corpus` reports progress: once per package and per tier of exercises."""
    return len(_named(params)) + len(params.exercises)


def build_corpus(
    params: CorpusParams, seed: int, folder: Path | None = None, *, progress: Progress = no_progress
) -> tuple[list[Document], CorpusManifest]:
    """Return all documents in training order, and the manifest of what they were built from.

    Args:
        folder: searched for packages first, and then this environment.

    Raises:
        BadData: a package is not installed, or its licence is not on the list.
    """
    builder = _Builder(params, random.Random(seed))
    files = {name: _permitted(name, params, folder) for name in _named(params)}
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        # 1) Other processes generate the exercises meanwhile.
        tiers = [
            pool.submit(recipe_exercises, tier, count, seed, params.exercise_names)
            for tier, count in params.exercises.items()
        ]
        # 2) The held-out packages first: what others copied from them must not enter either.
        for name in params.held_out:
            builder.exclude(package_modules(name, "test"))
        # 3) The packages, in the order of their names.
        packages = []
        for name, own in files.items():
            packages.append(builder.add_package(name, own))
            progress(1)
        # 4) The exercises.
        for tier in tiers:
            for exercise in tier.result():
                builder.add_exercise(exercise)
            progress(1)
    # 5) The order of training.
    builder.rng.shuffle(builder.documents)
    manifest = CorpusManifest(
        packages=tuple(packages),
        held_out=tuple(sorted(params.held_out)),
        exercises=params.exercises,
        documents=len(builder.documents),
    )
    return builder.documents, manifest


class _Builder:
    """Collects documents, none of them twice. The recipes of the embedded bases depend on the order of all draws."""

    def __init__(self, params: CorpusParams, rng: random.Random) -> None:
        self.rng = rng
        self.documents: list[Document] = []
        self._max_file_chars, self._shares = params.max_file_chars, params.shares
        self._seen: set[bytes] = set()

    def _is_new(self, text: str) -> bool:
        """Return whether a text was not seen before, white space aside, and remember it."""
        digest = hashlib.sha256(" ".join(text.split()).encode("utf-8", "replace")).digest()
        if digest in self._seen:
            return False
        self._seen.add(digest)
        return True

    def exclude(self, modules: list[Module]) -> None:
        """Let no file and no function of these modules enter."""
        for text in source_texts(modules, self._max_file_chars):
            self._is_new(text)
            for _, bare, _ in documented_functions(text):
                self._is_new(bare)

    def add_package(self, name: str, modules: list[Module]) -> PackageFacts:
        """Add the documents of one package."""
        files = functions = size = 0
        for text in source_texts(modules, self._max_file_chars):
            if not self._is_new(text):
                continue
            files, size = files + 1, size + len(text.encode())
            if self.rng.random() < self._shares.whole_files:
                self.documents.append(text[:MAX_FILE_DOCUMENT_CHARS])
            for source, bare, summary in documented_functions(text):
                if not self._is_new(bare):
                    continue
                functions += 1
                self.documents.append(f"{bare}\n\n# Summary: {summary}\n")
                if self.rng.random() < self._shares.docstring_first:
                    self.documents.append(source)
                self._add_chats(bare)
        return PackageFacts(
            name=name,
            version=modules[0].version,
            licences=tuple(sorted(licence_ids(modules[0].licence))),
            files=files,
            functions=functions,
            bytes=size,
        )

    def add_exercise(self, exercise: Exercise) -> None:
        """Add an exercise as text, and the chats about its code."""
        self.documents.append(exercise_text(exercise, self.rng))
        self._add_chats(exercise.code)

    def _add_chats(self, code: str) -> None:
        for share, form in ((self._shares.continuations, _continuation), (self._shares.fill_ins, _fill_in)):
            if share and self.rng.random() < share and (chat := form(code, self.rng)):
                self.documents.append(chat)
