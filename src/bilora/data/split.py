"""data-split: assign samples to train, validation and test, without test questions in the other splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from bilora.data.drops import Drops
from bilora.data.similarity import DuplicateIndex
from bilora.data_reports import DuplicatePair, SplitCounts, SplitReport, SplitSample
from bilora.errors import BadData
from bilora.params import Processing, Splitting
from bilora.records import Sample

_T = TypeVar("_T")

_SPLITS = ("train", "validation", "test")
_LARGEST_GROUPS = 20


def split_samples(
    samples: list[Sample], *, splitting: Splitting, seed: int, rules: Processing
) -> tuple[dict[str, list[Sample]], SplitReport]:
    """Return the samples by split, with the report.

    An official split is kept. Other groups are assigned as a whole by the hash of (seed, group), in the
    proportion of the three counts. Train and validation lose samples that repeat a test sample. Each split
    is then cut to its count, round-robin over tiers and groups, so that each of its prefixes is balanced.

    Raises:
        BadData: a split is empty; the message says why and what to do.
    """
    drops = Drops()
    split_sizes: Counter[str] = Counter(dict.fromkeys(_SPLITS, 0))
    assigned: dict[str, list[Sample]] = {name: [] for name in _SPLITS}
    for sample in samples:
        split = sample.split or _assign_split(sample.group, splitting, seed)
        split_sizes[split] += 1
        if split == "prompt":
            drops.add_sample("few-shot prompt of its source", sample)
        else:
            assigned[split].append(sample.model_copy(update={"split": split}))
    pairs = _drop_test_repeats(assigned, rules, drops)
    counts = {"train": splitting.train, "validation": splitting.validation, "test": splitting.test}
    for name, rows in assigned.items():
        ordered = _round_robin(rows, seed)
        for sample in ordered[counts[name] :]:
            drops.add_sample(f"over the {name} count", sample)
        assigned[name] = ordered[: counts[name]]
        if not assigned[name]:
            raise BadData(f"split {name}", _empty_reason(name, samples, split_sizes[name]))
    report = SplitReport(
        rows_in=len(samples),
        rows_out=sum(map(len, assigned.values())),
        dealt=dict(split_sizes),
        pairs=tuple(pairs),
        rules=drops.rules(),
        splits={name: _counts(rows) for name, rows in assigned.items()},
    )
    return assigned, report


def _empty_reason(name: str, samples: list[Sample], assigned_count: int) -> str:
    """Return why a split has no samples, and what to do."""
    official = Counter(sample.split for sample in samples if sample.split)
    if not samples:
        return "is empty: data-process accepted no row; its report under data/reports/process says why."
    if assigned_count:
        return f"is empty: all its {assigned_count} samples repeat test samples; add others."
    if len(samples) == official.total():
        named = ", ".join(f"{count} {split}" for split, count in sorted(official.items()))
        return (
            f"is empty: the source names every row's split ({named}), and none is {name}; add rows with the split "
            f"{name}, or remove `split` from all rows, which are then assigned by group."
        )
    groups = len({sample.group for sample in samples if not sample.split})
    return (
        f"is empty: none of the {groups} groups without an official split was assigned to it; add rows of other "
        f"groups, or raise its count under `split` in params.yaml, which is its share."
    )


def _hash(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256("\x00".join(map(str, parts)).encode()).digest()[:8], "big")


def _assign_split(group: str, splitting: Splitting, seed: int) -> str:
    point = _hash(seed, group) / 2**64 * (splitting.test + splitting.validation + splitting.train)
    if point < splitting.test:
        return "test"
    return "validation" if point < splitting.test + splitting.validation else "train"


def _drop_test_repeats(assigned: dict[str, list[Sample]], rules: Processing, drops: Drops) -> list[DuplicatePair]:
    """Remove samples that repeat a test sample from the other splits; return the pairs."""
    tested = DuplicateIndex(rules, assigned["test"])
    pairs = []
    for name in ("train", "validation"):
        accepted = []
        for sample in assigned[name]:
            repeat = tested.find_repeat(sample)
            if repeat is None:
                accepted.append(sample)
                continue
            rule, other = repeat
            drops.add_sample(f"{rule} as in test", sample, f"of {other.source}")
            pairs.append(
                DuplicatePair(
                    rule=rule,
                    dropped=SplitSample(id=sample.id, source=sample.source, split=name),
                    kept=SplitSample(id=other.id, source=other.source, split="test"),
                )
            )
        assigned[name] = accepted
    return pairs


def _round_robin(samples: list[Sample], seed: int) -> list[Sample]:
    """Return the samples in hash order, then round-robin over tiers and, within a tier, over groups."""

    def by_group(rows: list[Sample]) -> list[Sample]:
        return list(_alternate(_grouped(rows, lambda sample: sample.group)))

    shuffled = sorted(samples, key=lambda sample: (_hash(seed, sample.id), sample.source))
    return list(_alternate([by_group(tier) for tier in _grouped(shuffled, lambda sample: sample.tier)]))


def _grouped(samples: list[Sample], key: Callable[[Sample], str]) -> list[list[Sample]]:
    """Return the samples grouped by key, in order of the keys' first appearance."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(key(sample), []).append(sample)
    return list(groups.values())


def _alternate(queues: Iterable[list[_T]]) -> Iterator[_T]:
    active = [iter(queue) for queue in queues]
    while active:
        remaining = []
        for queue in active:
            for item in queue:
                yield item
                remaining.append(queue)
                break
        active = remaining


def _counts(samples: list[Sample]) -> SplitCounts:
    groups = Counter(sample.group for sample in samples)
    return SplitCounts(
        rows=len(samples),
        tier=dict(sorted(Counter(sample.tier for sample in samples).items())),
        licence=dict(sorted(Counter(sample.licence for sample in samples).items())),
        groups=len(groups),
        group=dict(sorted(groups.items(), key=lambda item: (-item[1], item[0]))[:_LARGEST_GROUPS]),
    )
