"""Find samples that repeat each other.

Samples with tests are programs. Two repeat each other if their statements have the same words, or if their
programs are equal except for formatting and chosen names. Similarity is not enough: exercises are similar on
purpose, and one more operator makes another task.

Samples without tests are compared by similarity: MinHash (Broder 1997) over the prompt's word triples finds
candidates, and the exact Jaccard index decides.
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

SAME_STATEMENT, SAME_PROGRAM, SAME_BOTH = "same statement", "same program", "same statement and program"
NEAR_DUPLICATE, SHARED_NGRAM = "near-duplicate", "shared n-gram"

_WORD = re.compile(r"\w+")
_SHINGLE = 3
_PERMUTATIONS = 64
_RECALL_FIRST = (0.05, 0.95)
"""Weights of false and of missed candidates: a false candidate only costs a set comparison."""
_BUILTINS = frozenset(dir(builtins))


def words(text: str) -> list[str]:
    """Return the words and numbers of a text in lower case."""
    return _WORD.findall(text.lower())


def statement(sample: Sample) -> str:
    """Return the words of the prompt's first paragraph: the question without signature and visible test."""
    return " ".join(words(sample.prompt.partition("\n\n")[0]))


def program_hash(code: str) -> str:
    """Return the hash of a program without formatting, annotations and chosen names; of other text, the text's."""
    tree = parse(code)
    return sha256_bytes((ast.dump(_NameNormalizer().visit(tree)) if tree else code).encode())


class _NameNormalizer(ast.NodeTransformer):
    """Replaces the names that a program chooses by numbers, in order of appearance; builtins keep their names."""

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
    """Return all sequences of n words in a text."""
    sequence = words(text)
    return {" ".join(sequence[start : start + n]) for start in range(len(sequence) - n + 1)}


@dataclass(frozen=True)
class _Fingerprint:
    """The compared features of one sample: exact values by rule, or a set of shingles."""

    exact: dict[str, str] = field(default_factory=dict)
    shingles: frozenset[int] = frozenset()


def _fingerprint(sample: Sample, *, as_program: bool = False) -> _Fingerprint:
    if sample.tests or as_program:
        question, code = statement(sample), program_hash(sample.target)
        return _Fingerprint(exact={SAME_STATEMENT: question, SAME_PROGRAM: code, SAME_BOTH: f"{code} {question}"})
    sequence = words(sample.prompt)
    starts = range(max(1, len(sequence) - _SHINGLE + 1))
    triples = (" ".join(sequence[start : start + _SHINGLE]) for start in starts)
    return _Fingerprint(shingles=frozenset(zlib.crc32(triple.encode()) for triple in triples))


class DuplicateIndex:
    """An index of samples, to find those that another sample repeats."""

    def __init__(self, rules: Processing, samples: Iterable[Sample] = ()) -> None:
        self._threshold = rules.near_duplicate
        self._exact: dict[tuple[str, str], Sample] = {}
        self._near = MinHashLSH(rules.near_duplicate, num_perm=_PERMUTATIONS, weights=_RECALL_FIRST)
        self._empty = MinHash(num_perm=_PERMUTATIONS, hashfunc=int)
        self._shingled: list[tuple[frozenset[int], Sample]] = []
        for sample in samples:
            self._add(sample, _fingerprint(sample))

    def find_repeat(self, sample: Sample) -> tuple[str, Sample] | None:
        """Return the sample that this one repeats, with the rule; of a program, one equal half is enough.

        A sample without tests, as from a rating, is compared as a program too if the index contains programs.
        """
        if not sample.tests and (duplicate := self._near_duplicate(_fingerprint(sample))):
            return NEAR_DUPLICATE, duplicate
        if sample.tests or self._exact:
            for rule, value in _fingerprint(sample, as_program=True).exact.items():
                if duplicate := self._exact.get((rule, value)):
                    return rule, duplicate
        return None

    def find_or_add(self, sample: Sample) -> Sample | None:
        """Return the sample that this one duplicates, or add it; duplicate programs are equal in both halves."""
        fingerprint = _fingerprint(sample)
        both = (SAME_BOTH, fingerprint.exact.get(SAME_BOTH, ""))
        duplicate = self._exact.get(both) if sample.tests else self._near_duplicate(fingerprint)
        if duplicate is None:
            self._add(sample, fingerprint)
        return duplicate

    def _add(self, sample: Sample, fingerprint: _Fingerprint) -> None:
        if sample.tests:
            for rule, value in fingerprint.exact.items():
                self._exact.setdefault((rule, value), sample)
        else:
            self._near.insert(len(self._shingled), self._sketch(fingerprint))
            self._shingled.append((fingerprint.shingles, sample))

    def _sketch(self, fingerprint: _Fingerprint) -> MinHash:
        sketch = self._empty.copy()  # drawing the permutations again would take ten times as long as hashing
        sketch.update_batch(sorted(fingerprint.shingles))
        return sketch

    def _near_duplicate(self, fingerprint: _Fingerprint) -> Sample | None:
        if not self._shingled:
            return None
        indices: list[int] = sorted(self._near.query(self._sketch(fingerprint)))
        for index in indices:
            others, other = self._shingled[index]
            if len(fingerprint.shingles & others) >= self._threshold * len(fingerprint.shingles | others):
                return other
        return None
