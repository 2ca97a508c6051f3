"""Promotion: the baseline changes completely, once, with a line in the history."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.checkouts import ROOT

from bilora.errors import BadData, NotPromotable
from bilora.publishing import promote as module
from bilora.publishing.promote import HistoryLine, forget_incumbents, promote, upgrade_baseline
from bilora.results import Baseline, BaselineEntry, Incumbents, Results, read_baseline, write_baseline

TIME = "2026-01-01T00:00:00Z"


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    return tmp_path / "benchmarking" / "baseline.json"


def run(results: Any, baseline: Path) -> bool:
    return promote(results, baseline, baseline.with_name("history.jsonl"), created_utc=TIME)


def history(baseline: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in baseline.with_name("history.jsonl").read_text().splitlines()]


def test_the_gate_reads_what_was_promoted(inputs: Any, baseline: Path) -> None:
    assert run(inputs.results, baseline)
    entries = {name: task.entry for name, task in inputs.results.tasks.items()}
    assert read_baseline(baseline).tasks == {
        name: Incumbents(current=entry, champion=entry) for name, entry in entries.items()
    }


def test_the_best_one_ever_stays_champion(make_inputs: Callable[..., Any], baseline: Path) -> None:
    best, worse, better = make_inputs(1, mean=0.7), make_inputs(2, mean=0.6), make_inputs(3, mean=0.8)
    champions = []
    for inputs in (best, worse, better):
        run(inputs.results, baseline)
        incumbents = read_baseline(baseline).tasks["codegen"]
        assert incumbents.current == inputs.results.tasks["codegen"].entry
        champions.append(incumbents.champion.adapter_sha256)
    shas = [inputs.verdicts["codegen"].adapter_sha256 for inputs in (best, worse, better)]
    assert champions == [shas[0], shas[0], shas[2]]


def test_a_champion_of_other_conditions_is_replaced(
    make_inputs: Callable[..., Any], with_task: Callable[..., Results], baseline: Path
) -> None:
    best, other = make_inputs(1, mean=0.9), make_inputs(2, mean=0.5)
    run(best.results, baseline)
    entry = other.results.tasks["codegen"].entry.model_copy(update={"key": "other"})
    run(with_task(other.results, "codegen", entry=entry), baseline)
    assert read_baseline(baseline).tasks["codegen"].champion == entry


def test_forgetting_a_task_leaves_the_others_and_a_line(inputs: Any, baseline: Path) -> None:
    run(inputs.results, baseline)
    forget_incumbents("codegen", baseline, baseline.with_name("history.jsonl"), created_utc=TIME)
    assert set(read_baseline(baseline).tasks) == {"docstring"}
    assert history(baseline)[-1]["forgotten"] == {"codegen": inputs.verdicts["codegen"].adapter_sha256}
    with pytest.raises(BadData, match="no entry for 'codegen'"):
        forget_incumbents("codegen", baseline, baseline.with_name("history.jsonl"), created_utc=TIME)


def test_the_history_says_what_replaced_what(make_inputs: Callable[..., Any], baseline: Path) -> None:
    old, new = make_inputs(1), make_inputs(2)
    run(old.results, baseline)
    run(new.results, baseline)
    first, second = history(baseline)
    assert first["created_utc"] == TIME
    assert first["tasks"]["codegen"]["replaced"] is None
    assert second["tasks"]["codegen"]["replaced"] == old.verdicts["codegen"].adapter_sha256
    assert second["tasks"]["codegen"]["adapter_sha256"] == new.verdicts["codegen"].adapter_sha256


def test_the_same_promotion_again_changes_nothing(inputs: Any, baseline: Path) -> None:
    run(inputs.results, baseline)
    before = baseline.stat().st_mtime_ns
    assert not run(inputs.results, baseline)
    assert baseline.stat().st_mtime_ns == before
    assert len(history(baseline)) == 1


def test_a_return_to_older_adapters_is_recorded(make_inputs: Callable[..., Any], baseline: Path) -> None:
    old, new = make_inputs(1), make_inputs(2)
    assert [run(inputs.results, baseline) for inputs in (old, new, old)] == [True, True, True]
    assert len(history(baseline)) == 3


def test_tasks_of_other_runs_stay(inputs: Any, baseline: Path) -> None:
    entry = BaselineEntry(adapter_sha256="x", key="k", metric="m", scores={})
    write_baseline(baseline, Baseline(tasks={"haiku": Incumbents(current=entry, champion=entry)}))
    run(inputs.results, baseline)
    assert read_baseline(baseline).tasks["haiku"].current == entry


@pytest.mark.parametrize(
    "change", [None, {"outcome": "regressed"}, {"outcome": "inconclusive"}, {"adapter_sha256": "other"}]
)
def test_without_a_passing_verdict_nothing_moves(
    inputs: Any, with_task: Callable[..., Results], baseline: Path, change: dict[str, str] | None
) -> None:
    verdict = inputs.verdicts["docstring"].model_copy(update=change) if change else None
    with pytest.raises(NotPromotable, match="docstring"):
        run(with_task(inputs.results, "docstring", verdict=verdict), baseline)
    assert not baseline.exists()


def test_a_damaged_baseline_is_not_overwritten(inputs: Any, baseline: Path) -> None:
    baseline.parent.mkdir()
    baseline.write_text('{"schema": 9}')
    with pytest.raises(BadData, match="schema"):
        run(inputs.results, baseline)
    assert baseline.read_text() == '{"schema": 9}'


def test_a_kill_between_history_and_baseline_is_completed_without_a_second_line(
    inputs: Any, baseline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, baseline: Baseline) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "write_baseline", killed)
        run(inputs.results, baseline)
    assert run(inputs.results, baseline)
    assert len(history(baseline)) == 1
    assert read_baseline(baseline).tasks


def test_a_torn_line_does_not_block_the_next(inputs: Any, baseline: Path) -> None:
    baseline.parent.mkdir()
    baseline.with_name("history.jsonl").write_text('{"baseline_sha')
    run(inputs.results, baseline)
    torn, whole = baseline.with_name("history.jsonl").read_text().splitlines()
    assert torn == '{"baseline_sha'
    assert json.loads(whole)["created_utc"] == TIME


def test_no_lock_file_is_left_beside_versioned_files(inputs: Any, baseline: Path) -> None:
    run(inputs.results, baseline)
    assert sorted(path.name for path in baseline.parent.iterdir()) == ["baseline.json", "history.jsonl"]


def test_an_upgrade_keeps_every_entry_and_notes_itself_once(inputs: Any, baseline: Path) -> None:
    run(inputs.results, baseline)
    whole = read_baseline(baseline)
    baseline.write_text(baseline.read_text().replace('"schema": 3', '"schema": 2'))
    with pytest.raises(BadData, match="bilora baseline upgrade"):
        run(inputs.results, baseline)
    upgrades = [upgrade_baseline(baseline, baseline.with_name("history.jsonl"), created_utc=TIME) for _ in range(2)]
    assert upgrades == [True, False]
    assert read_baseline(baseline) == whole
    assert not run(inputs.results, baseline)
    assert [line.get("upgraded_to_schema") for line in history(baseline)] == [None]


def test_an_upgrade_of_a_file_whose_history_ends_elsewhere_has_a_line(inputs: Any, baseline: Path) -> None:
    run(inputs.results, baseline)
    baseline.write_text(baseline.read_text().replace('"schema": 3', '"schema": 2'))
    baseline.with_name("history.jsonl").unlink()
    upgrade_baseline(baseline, baseline.with_name("history.jsonl"), created_utc=TIME)
    (line,) = history(baseline)
    assert line["upgraded_to_schema"] == 3 and set(line) == {"baseline_sha256", "created_utc", "upgraded_to_schema"}


def test_an_absent_or_damaged_baseline_is_not_upgraded(baseline: Path) -> None:
    assert not upgrade_baseline(baseline, baseline.with_name("history.jsonl"), created_utc=TIME)
    baseline.write_text('{"schema": 2, "tasks": {"codegen": {}}}')
    with pytest.raises(BadData, match=r"tasks\.codegen\.current"):
        upgrade_baseline(baseline, baseline.with_name("history.jsonl"), created_utc=TIME)
    assert [path.name for path in baseline.parent.iterdir()] == ["baseline.json"]


def test_every_line_of_the_committed_history_is_read(inputs: Any, baseline: Path) -> None:
    run(inputs.results, baseline)
    for path in (ROOT / "benchmarking" / "history.jsonl", baseline.with_name("history.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            read = HistoryLine.model_validate_json(line)
            assert read.model_dump(mode="json", exclude_unset=True) == json.loads(line)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_promotions_at_once_take_turns(make_inputs: Callable[..., Any], baseline: Path) -> None:
    fork = multiprocessing.get_context("fork")
    inputs = [make_inputs(fill).results for fill in range(4)]
    workers = [fork.Process(target=run, args=(results, baseline)) for results in inputs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    lines = history(baseline)
    assert len(lines) == 4
    chain = [line["tasks"]["codegen"] for line in lines]
    assert [link["replaced"] for link in chain] == [None, *(link["adapter_sha256"] for link in chain[:-1])]
