"""data-split: samples are assigned to train, validation and test, and no test question is trained on."""

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
    """Assign samples to splits; return them with the report.

    An official split is kept. Other groups are assigned whole, by the hash of (seed, group), in the
    proportion of the three counts. What repeats a test sample leaves train and validation. Then each
    split is cut to its count, round-robin over tiers and groups, so that any beginning of it is balanced.

    Raises:
        BadData: a split is empty; the message says why, and what to do.
    """
    drops = Drops()
    places: Counter[str] = Counter(dict.fromkeys(_SPLITS, 0))
    assigned: dict[str, list[Sample]] = {name: [] for name in _SPLITS}
    for sample in samples:
        place = sample.split or _assign_split(sample.group, splitting, seed)
        places[place] += 1
        if place == "prompt":
            drops.add_sample("few-shot prompt of its source", sample)
        else:
            assigned[place].append(sample.model_copy(update={"split": place}))
    pairs = _separate(assigned, rules, drops)
    counts = {"train": splitting.train, "validation": splitting.validation, "test": splitting.test}
    for name, members in assigned.items():
        ordered = _round_robin(members, seed)
        for sample in ordered[counts[name] :]:
            drops.add_sample(f"over the {name} count", sample)
        assigned[name] = ordered[: counts[name]]
        if not assigned[name]:
            raise BadData(f"split {name}", _why_empty(name, samples, places[name]))
    report = SplitReport(
        rows_in=len(samples),
        rows_out=sum(map(len, assigned.values())),
        dealt=dict(places),
        pairs=tuple(pairs),
        rules=drops.rules(),
        splits={name: _counts(members) for name, members in assigned.items()},
    )
    return assigned, report


def _why_empty(name: str, samples: list[Sample], dealt: int) -> str:
    """Say why a split has no samples, and what would give it some."""
    official = Counter(sample.split for sample in samples if sample.split)
    if not samples:
        return "is empty: data-process kept no row; its report under data/reports/process says why."
    if dealt:
        return f"is empty: all its {dealt} samples repeat test samples; add others."
    if len(samples) == official.total():
        named = ", ".join(f"{count} {split}" for split, count in sorted(official.items()))
        return (
            f"is empty: the source names every row's split ({named}), and none is {name}; name one for {name}, "
            "or leave the split out of the rows, which are then dealt by their groups."
        )
    groups = len({sample.group for sample in samples if not sample.split})
    return (
        f"is empty: none of the {groups} groups that have no split of their own was dealt to it; add rows of other "
        f"groups, or raise its count under `split` in params.yaml, which is its share."
    )


def _hash(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256("\x00".join(map(str, parts)).encode()).digest()[:8], "big")


def _assign_split(group: str, splitting: Splitting, seed: int) -> str:
    point = _hash(seed, group) / 2**64 * (splitting.test + splitting.validation + splitting.train)
    if point < splitting.test:
        return "test"
    return "validation" if point < splitting.test + splitting.validation else "train"


def _separate(assigned: dict[str, list[Sample]], rules: Processing, drops: Drops) -> list[DuplicatePair]:
    """Take what repeats a test sample out of the other splits; return the pairs."""
    tested = DuplicateIndex(rules, assigned["test"])
    pairs = []
    for name in ("train", "validation"):
        kept = []
        for sample in assigned[name]:
            repeated = tested.repeated(sample)
            if repeated is None:
                kept.append(sample)
                continue
            rule, other = repeated
            drops.add_sample(f"{rule} as in test", sample, f"of {other.source}")
            pairs.append(
                DuplicatePair(
                    rule=rule,
                    dropped=SplitSample(id=sample.id, source=sample.source, split=name),
                    kept=SplitSample(id=other.id, source=other.source, split="test"),
                )
            )
        assigned[name] = kept
    return pairs


def _round_robin(samples: list[Sample], seed: int) -> list[Sample]:
    """Order by hash; then round-robin over the tiers, and within a tier over its groups."""

    def by_group(members: list[Sample]) -> list[Sample]:
        return list(_alternate(_grouped(members, lambda sample: sample.group)))

    shuffled = sorted(samples, key=lambda sample: (_hash(seed, sample.id), sample.source))
    return list(_alternate([by_group(tier) for tier in _grouped(shuffled, lambda sample: sample.tier)]))


def _grouped(samples: list[Sample], key: Callable[[Sample], str]) -> list[list[Sample]]:
    """Collect by key, in the order in which the keys appear."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(key(sample), []).append(sample)
    return list(groups.values())


def _alternate(queues: Iterable[list[_T]]) -> Iterator[_T]:
    waiting = [iter(queue) for queue in queues]
    while waiting:
        still = []
        for queue in waiting:
            for item in queue:
                yield item
                still.append(queue)
                break
        waiting = still


def _counts(samples: list[Sample]) -> SplitCounts:
    groups = Counter(sample.group for sample in samples)
    return SplitCounts(
        rows=len(samples),
        tier=dict(sorted(Counter(sample.tier for sample in samples).items())),
        licence=dict(sorted(Counter(sample.licence for sample in samples).items())),
        groups=len(groups),
        group=dict(sorted(groups.items(), key=lambda item: (-item[1], item[0]))[:_LARGEST_GROUPS]),
    )
