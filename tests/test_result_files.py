"""results.json and baseline.json: read as records, refused with a sentence, and with equal bytes for equal records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bilora.errors import BadData
from bilora.results import (
    Baseline,
    BaselineEntry,
    Incumbents,
    baseline_text,
    read_baseline,
    read_results,
    write_baseline,
    write_results,
)

ROOT = Path(__file__).resolve().parents[1]
ENTRY: dict[str, Any] = {"adapter_sha256": "a", "key": "k", "metric": "m", "scores": {"m": {"s": 0.5, "t": None}}}
BOTH = {"current": ENTRY, "champion": ENTRY}
TASK: dict[str, Any] = {
    **dict.fromkeys(("title", "headline", "key", "adapter_sha256"), "x"),
    **{"metrics": ["x"], "scales": {"x": {"label": "X"}}, "not_run": {}, "verdict": None, "entry": ENTRY},
    **{"summary": {"test": {}}, "samples": {}, "rows": []},
}
RESULTS: dict[str, Any] = {
    **{"schema": 2, "profile": "smoke", "harness": "1", "seed": 1, "notes": {}, "judge": []},
    **{"latency_s": {"test": {"base": None}}, "tasks": {"codegen": TASK}},
}


def test_an_absent_or_empty_baseline_has_no_tasks(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    assert read_baseline(path) == Baseline()
    path.write_text('{"schema": 3, "tasks": {}}')
    assert read_baseline(path) == Baseline()


def test_the_baseline_of_this_checkout_is_written_as_it_is_read() -> None:
    path = ROOT / "benchmarking" / "baseline.json"  # empty as committed; `make demo` promotes
    assert path.read_text(encoding="utf-8") == baseline_text(read_baseline(path))


def test_a_baseline_is_read_back(tmp_path: Path) -> None:
    entry = BaselineEntry(adapter_sha256="a", key="k", metric="m", scores={"m": {"s": 0.5, "t": None}})
    baseline = Baseline(tasks={"codegen": Incumbents(current=entry, champion=entry)})
    write_baseline(tmp_path / "baseline.json", baseline)
    assert json.loads((tmp_path / "baseline.json").read_text()) == {"schema": 3, "tasks": {"codegen": BOTH}}
    assert read_baseline(tmp_path / "baseline.json") == baseline


def test_a_baseline_of_the_schema_before_is_refused_with_the_command_that_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps({"schema": 2, "tasks": {"codegen": BOTH}}))
    with pytest.raises(BadData, match=r"is of schema 2, not 3; run `bilora baseline upgrade`, which keeps every score"):
        read_baseline(path)
    assert read_baseline(path, accept_previous=True).tasks["codegen"].current.scores == ENTRY["scores"]


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ([], "is not a baseline of schema 3"),
        ({"schema": 1, "tasks": {}}, "is not a baseline of schema 3"),
        ({"schema": 3, "tasks": []}, "tasks: "),
        ({"schema": 3}, "tasks: "),
        ({"schema": 3, "tasks": {"codegen": {}}}, "tasks.codegen.current: "),
        ({"schema": 3, "tasks": {"codegen": {"current": ENTRY}}}, "tasks.codegen.champion: "),
        ({"schema": 3, "tasks": {"codegen": BOTH | {"champion": ENTRY | {"scores": {"m": {"s": 7}}}}}}, "scores.m.s"),
        ({"schema": 3, "tasks": {"codegen": BOTH | {"current": ENTRY | {"scores": {"m": {"s": True}}}}}}, "scores.m.s"),
        ({"schema": 3, "tasks": {"codegen": BOTH | {"current": ENTRY | {"scores": {"s": 0.5}}}}}, "scores.s"),
    ],
)
def test_a_damaged_baseline_is_refused_and_the_place_is_named(tmp_path: Path, document: object, problem: str) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps(document))
    with pytest.raises(BadData, match=f"{problem}.*; restore it from version control"):
        read_baseline(path)


def test_results_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(RESULTS))
    results = read_results(path)
    write_results(tmp_path / "again.json", results)
    assert read_results(tmp_path / "again.json") == results
    assert json.loads((tmp_path / "again.json").read_text())["schema"] == 2


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"schema": 1}, "is of schema 1, not 2; run `dvc repro -f benchmark`"),
        ({"tasks": {"codegen": TASK | {"entry": {"key": 1}}}}, "tasks.codegen.entry.adapter_sha256.*benchmark`"),
        ({"tasks": {"codegen": TASK | {"verdict": {"outcome": "great"}}}}, "tasks.codegen.verdict.*benchmark`"),
        ({"tasks": {"codegen": TASK | {"summary": []}}}, "tasks.codegen.summary.*benchmark`"),
        ({"harness": None}, "harness.*; run `dvc repro -f benchmark`"),
        ({"tasks": []}, "is not a results.json of `bilora benchmark`"),
    ],
)
def test_results_of_another_form_are_refused_in_one_sentence(
    tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(RESULTS | change))
    with pytest.raises(BadData, match=problem):
        read_results(path)


def test_the_means_are_of_the_test_split_alone(tmp_path: Path) -> None:
    summary = {"n": 1, "unscored": 0, "mean": 0.5, "low": None, "high": None}
    system = {"n": 1, "errors": 0, "cut": 0, "metrics": {"x": summary}, "latency_s": None}
    task = TASK | {"summary": {"test": {"systems": {"base": system}}, "curated": {"systems": {"remote": system}}}}
    path = tmp_path / "results.json"
    path.write_text(json.dumps(RESULTS | {"tasks": {"codegen": task, "docstring": TASK}}))
    assert read_results(path).means() == {"codegen": {"base": {"x": 0.5}}, "docstring": {}}
