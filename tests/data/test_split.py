from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from bilora.data.split import split_samples
from bilora.data_reports import SplitReport
from bilora.errors import BadData
from bilora.params import Processing, Splitting
from bilora.records import Sample


def made(number: int, **changes: Any) -> Sample:
    fields: dict[str, Any] = {
        "prompt": f"Set x to {number}.",
        "target": f"x = {number}",
        "source": f"here:{number}",
        "group": str(number),
        "licence": "MIT",
        "tests": ("assert True",),
    }
    return Sample.create(task="codegen", **{**fields, **changes})


def deal(samples: list[Sample], train: int = 600, validation: int = 200, test: int = 200, seed: int = 1) -> Any:
    counts = Splitting(train=train, validation=validation, test=test)
    return split_samples(samples, splitting=counts, seed=seed, rules=Processing())


MANY = [made(number, group=f"g{number // 4}") for number in range(400)]
OFFICIAL = [made(1, split="train"), made(2, split="validation"), made(3, split="test")]


def test_groups_are_never_divided() -> None:
    dealt, _ = deal(MANY)
    homes = Counter(group for members in dealt.values() for group in {sample.group for sample in members})
    assert len(homes) == 100 and set(homes.values()) == {1}


def test_groups_are_assigned_in_proportion() -> None:
    dealt, _ = deal(MANY)
    assert 180 < len(dealt["train"]) < 300 and len(dealt["validation"]) > 40 and len(dealt["test"]) > 40


def test_a_group_keeps_its_split_when_others_are_added() -> None:
    before, _ = deal(MANY[:200])
    after, _ = deal(MANY)
    for name, members in before.items():
        assert {sample.id for sample in members} <= {sample.id for sample in after[name]}


def test_the_seed_decides() -> None:
    def groups(seed: int) -> set[str]:
        return {sample.group for sample in deal(MANY, seed=seed)[0]["test"]}

    assert groups(1) == groups(1) != groups(2)


def test_the_seed_decides_which_samples_are_over_the_count() -> None:
    official = [*OFFICIAL[:2], *(made(number, split="test") for number in range(10, 30))]
    first, again, other = (deal(official, test=5, seed=seed)[0]["test"] for seed in (1, 1, 2))
    assert first == again != other


def test_the_order_of_the_rows_does_not_matter() -> None:
    assert deal(MANY)[0] == deal(MANY[::-1])[0]


def test_official_splits_are_kept_and_written_into_samples() -> None:
    dealt, _ = deal(OFFICIAL)
    assert {name: [sample.source for sample in members] for name, members in dealt.items()} == {
        "train": ["here:1"],
        "validation": ["here:2"],
        "test": ["here:3"],
    }
    assert all(sample.split == name for name, members in deal(MANY)[0].items() for sample in members)


def test_few_shot_rows_are_dropped_and_counted() -> None:
    dealt, report = deal([*OFFICIAL, made(4, split="prompt")])
    assert sum(map(len, dealt.values())) == 3
    assert report.rules[0].rule == "few-shot prompt of its source"


@pytest.mark.parametrize("name", ["train", "validation"])
@pytest.mark.parametrize(
    ("rule", "twin"),
    [
        ("same statement", {"prompt": "set X, to 3!"}),
        ("same program", {"target": "y = 3"}),
        ("near-duplicate", {"prompt": "Set x to 3.", "tests": ()}),
    ],
)
def test_a_sample_that_repeats_a_test_sample_is_not_trained_on(name: Any, rule: str, twin: dict[str, Any]) -> None:
    kept = made(3, split="test", tests=twin.get("tests", ("assert True",)))
    dealt, report = deal([*OFFICIAL[:2], kept, made(9, split=name, **twin)])
    assert dealt["test"] == [kept] and len(dealt[name]) == 1
    (pair,) = report.pairs
    assert (pair.rule, pair.dropped.source, pair.kept.source) == (rule, "here:9", "here:3")
    assert pair.dropped.split == name


def test_splits_are_cut_to_their_counts_and_drops_are_counted() -> None:
    dealt, report = deal(MANY, train=20, validation=5, test=5)
    assert [len(dealt[name]) for name in ("train", "validation", "test")] == [20, 5, 5]
    assert sum(entry.count for entry in report.rules) == 370 == 400 - report.rows_out


def test_a_large_group_does_not_fill_a_split() -> None:
    large = [made(number, group="large", split="test") for number in range(100, 200)]
    small = [made(number, group=f"small{number % 3}", split="test") for number in range(200, 212)]
    dealt, _ = deal([*OFFICIAL[:2], *large, *small], test=16)
    assert set(Counter(sample.group for sample in dealt["test"]).values()) == {4}


def test_tiers_alternate_so_every_prefix_is_balanced() -> None:
    tiers = [*["one"] * 9, *["two"] * 90, *["three"] * 900]
    samples = [made(number, tier=tier, split="test") for number, tier in enumerate(tiers, start=10)]
    dealt, report = deal([*OFFICIAL[:2], *samples], test=60)
    assert report.splits["test"].tier == {"one": 9, "three": 26, "two": 25}
    assert set(Counter(sample.tier for sample in dealt["test"][:27]).values()) == {9}


@pytest.mark.parametrize(
    ("samples", "advice"),
    [
        ([], r"split train: is empty: data-process accepted no row"),
        (
            [OFFICIAL[0], OFFICIAL[2]],
            r"validation: is empty: the source names every row's split \(1 test, 1 train\), and none is validation",
        ),
        (
            [OFFICIAL[0], made(3, split="validation"), made(3, split="test")],
            "split validation: is empty: all its 1 samples repeat test samples",
        ),
        ([made(n, group="one") for n in range(9)], "is empty: none of the 1 groups .* was assigned to it"),
    ],
    ids=["nothing at all", "no such split", "all are repeats", "one group"],
)
def test_an_empty_split_says_why_and_what_to_do(samples: list[Sample], advice: str) -> None:
    with pytest.raises(BadData, match=advice):
        deal(samples)


def test_the_report_counts_each_split_and_is_json() -> None:
    _, report = deal(OFFICIAL)
    assert report.splits["test"].model_dump() == {
        "rows": 1,
        "tier": {"": 1},
        "licence": {"MIT": 1},
        "groups": 1,
        "group": {"3": 1},
    }
    assert SplitReport.model_validate_json(report.model_dump_json()) == report
