"""All of MBPP from its file to its splits, every reference executed in the real sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.shared_data import shared_file

from bilora.data.download import download
from bilora.data.process import ProcessResult, process
from bilora.data.split import split_samples
from bilora.params import Processing, Splitting
from bilora.records import Sample
from bilora.sandbox import ProcessSandbox
from bilora.sources.kinds.files import Files, FilesSettings
from bilora.tasks import load_task

Dealt = tuple[dict[str, list[Sample]], dict[str, Any]]


@pytest.fixture(scope="module")
def processed(tmp_path_factory: pytest.TempPathFactory) -> ProcessResult:
    raw: Path = tmp_path_factory.mktemp("mbpp") / "raw.jsonl"
    params = FilesSettings(
        kind="files", paths=[str(shared_file("mbpp/mbpp.jsonl"))], licence="CC-BY-4.0", splits="mbpp"
    )
    assert download(Files(params), raw) == 974
    with ProcessSandbox(workers=2) as sandbox:
        return process(load_task("codegen"), raw, sandbox=sandbox, rules=Processing())


@pytest.fixture(scope="module")
def dealt(processed: ProcessResult) -> Dealt:
    counts = Splitting(train=374, validation=90, test=500)
    return split_samples(processed.samples, splitting=counts, seed=1, rules=Processing())


def test_all_references_pass_their_tests(processed: ProcessResult) -> None:
    execution = processed.report.execution
    assert (processed.report.rows_in, execution.run, execution.passed) == (974, 974, 974)


def test_nothing_is_dropped(processed: ProcessResult) -> None:
    assert processed.report.rules == () and len(processed.samples) == 974


def test_the_split_is_the_official_one(dealt: Dealt) -> None:
    _, report = dealt
    assert report.dealt == {"train": 374, "validation": 90, "test": 500, "prompt": 10}


def test_three_statements_occur_in_train_and_test(dealt: Dealt) -> None:
    pairs = [(pair.kept.source, pair.dropped.source) for pair in dealt[1].pairs if pair.rule == "same statement"]
    assert sorted(pairs) == [("mbpp:216", "mbpp:872"), ("mbpp:217", "mbpp:602"), ("mbpp:248", "mbpp:704")]


def test_twelve_more_programs_differ_in_names_only(dealt: Dealt) -> None:
    rules = [pair.rule for pair in dealt[1].pairs]
    assert rules.count("same program") == 12 and len(rules) == 15


def test_the_test_split_is_complete_and_not_trained_on(dealt: Dealt) -> None:
    splits, report = dealt
    assert len(splits["test"]) == 500
    removed = {pair.dropped.id for pair in report.pairs}
    assert not removed.intersection(sample.id for sample in splits["train"] + splits["validation"])
    assert len(splits["train"]) + len(splits["validation"]) == 374 + 90 - len(removed)
