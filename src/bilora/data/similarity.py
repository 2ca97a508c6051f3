"""When two samples are the same question.

Samples with tests are programs. Two are the same if the statement reads the same, or if the programs
are equal without formatting and chosen names. Likeness is not enough there: exercises
resemble each other on purpose, and one operator more is another task.

Samples without tests are judged by likeness: MinHash (Broder 1997) over the prompt's word triples
finds candidates, the exact Jaccard index decides.
"""

from __future__ import annotations

import ast
import builtins
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from datasketch import MinHash, MinHashLSH

from bilora.params import Processing
from bilora.records import Sample
from bilora.storage import sha256_bytes
from bilora.tasks.task import parse

STATEMENT, PROGRAM, REPETITION = "same statement", "same program", "same statement and program"
LIKENESS, OVERLAP = "near-duplicate", "shared n-gram"

_WORD = re.compile(r"\w+")
_SHINGLE = 3
_PERMUTATIONS = 64
_RECALL_FIRST = (0.05, 0.95)
"""Weights of false candidates and of missed ones: a false one costs a set comparison, no more."""
_BUILTINS = frozenset(dir(builtins))


def words(text: str) -> list[str]:
    """Lower-case words and numbers of a text."""
    return _WORD.findall(text.lower())


def statement(sample: Sample) -> str:
    """Return the prompt's first paragraph as words: the question without signature and visible test."""
    return " ".join(words(sample.prompt.partition("\n\n")[0]))


def program_hash(code: str) -> str:
    """Hash a program without its formatting, annotations and chosen names; of other text, the text."""
    tree = parse(code)
    return sha256_bytes((ast.dump(_Renamed().visit(tree)) if tree else code).encode())


class _Renamed(ast.NodeTransformer):
    """Numbers the names a program chooses, in order of appearance; builtins keep theirs."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {name: name for name in _BUILTINS}

    def _number(self, name: str) -> str:
        return self._names.setdefault(name, f"v{len(self._names)}")

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = self._number(node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.arg, node.annotation = self._number(node.arg), None
        return node

    def visit_keyword(self, node: ast.keyword) -> ast.keyword:
        if node.arg in self._names:
            node.arg = self._names[node.arg]
        self.generic_visit(node)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.name, node.returns = self._number(node.name), None
        self.generic_visit(node)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        node.name = self._number(node.name)
        self.generic_visit(node)
        return node


def ngrams(text: str, n: int) -> set[str]:
    """Return all runs of n words."""
    sequence = words(text)
    return {" ".join(sequence[start : start + n]) for start in range(len(sequence) - n + 1)}


@dataclass(frozen=True)
class _Fingerprint:
    """What is compared of one sample: exact values by rule, or a set of shingles."""

    exact: dict[str, str] = field(default_factory=dict)
    shingles: frozenset[int] = frozenset()


def _fingerprint(sample: Sample, *, as_program: bool = False) -> _Fingerprint:
    if sample.tests or as_program:
        question, code = statement(sample), program_hash(sample.target)
        return _Fingerprint(exact={STATEMENT: question, PROGRAM: code, REPETITION: f"{code} {question}"})
    sequence = words(sample.prompt)
    starts = range(max(1, len(sequence) - _SHINGLE + 1))
    triples = (" ".join(sequence[start : start + _SHINGLE]) for start in starts)
    return _Fingerprint(shingles=frozenset(zlib.crc32(triple.encode()) for triple in triples))


class DuplicateIndex:
    """The samples so far, searched for one that another sample repeats."""

    def __init__(self, rules: Processing, samples: Iterable[Sample] = ()) -> None:
        self._threshold = rules.near_duplicate
        self._exact: dict[tuple[str, str], Sample] = {}
        self._near = MinHashLSH(rules.near_duplicate, num_perm=_PERMUTATIONS, weights=_RECALL_FIRST)
        self._empty = MinHash(num_perm=_PERMUTATIONS, hashfunc=int)
        self._shingled: list[tuple[frozenset[int], Sample]] = []
        for sample in samples:
            self._add(sample, _fingerprint(sample))

    def repeated(self, sample: Sample) -> tuple[str, Sample] | None:
        """Return the rule by which a sample repeats another, and that one: for programs either half is enough.

        A sample without tests, as a rating gives it, is a program too where the known ones are.
        """
        if not sample.tests and (like := self._near_duplicate(_fingerprint(sample))):
            return LIKENESS, like
        if sample.tests or self._exact:
            for rule, value in _fingerprint(sample, as_program=True).exact.items():
                if twin := self._exact.get((rule, value)):
                    return rule, twin
        return None

    def find_or_add(self, sample: Sample) -> Sample | None:
        """Return the sample that this one duplicates, else add it: programs must agree in both halves."""
        fingerprint = _fingerprint(sample)
        both = (REPETITION, fingerprint.exact.get(REPETITION, ""))
        twin = self._exact.get(both) if sample.tests else self._near_duplicate(fingerprint)
        if twin is None:
            self._add(sample, fingerprint)
        return twin

    def _add(self, sample: Sample, fingerprint: _Fingerprint) -> None:
        if sample.tests:
            for rule, value in fingerprint.exact.items():
                self._exact.setdefault((rule, value), sample)
        else:
            self._near.insert(len(self._shingled), self._sketch(fingerprint))
            self._shingled.append((fingerprint.shingles, sample))

    def _sketch(self, fingerprint: _Fingerprint) -> MinHash:
        sketch = self._empty.copy()  # drawing its permutations again costs ten times the hashing
        sketch.update_batch(sorted(fingerprint.shingles))
        return sketch

    def _near_duplicate(self, fingerprint: _Fingerprint) -> Sample | None:
        if not self._shingled:
            return None
        places: list[int] = sorted(self._near.query(self._sketch(fingerprint)))
        for place in places:
            others, other = self._shingled[place]
            if len(fingerprint.shingles & others) >= self._threshold * len(fingerprint.shingles | others):
                return other
        return None
