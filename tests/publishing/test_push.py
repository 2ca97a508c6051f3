"""Push publishes nothing without a passing verdict on exactly its bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.fakes import FakeHub

from bilora.errors import NotPromotable, Unreachable
from bilora.publishing.local_hub import LocalHub
from bilora.publishing.push import push, verified_results
from bilora.results import GuardCheck, Results
from bilora.storage import sha256_bytes


def test_passing_adapters_are_published(tmp_path: Path, inputs: Any) -> None:
    hub = LocalHub(tmp_path / "hub")
    result = push(hub, inputs.files, inputs.verdicts)
    assert result.changed
    assert result.digest == hub.digest() == sha256_bytes(inputs.files["manifest.json"])
    assert (Path(result.location) / "codegen" / "adapter_config.json").is_file()


def test_a_second_push_changes_nothing(tmp_path: Path, inputs: Any) -> None:
    hub = LocalHub(tmp_path / "hub")
    push(hub, inputs.files, inputs.verdicts)
    assert not push(hub, inputs.files, inputs.verdicts).changed


def test_a_rollback_is_a_change(tmp_path: Path, make_inputs: Callable[..., Any]) -> None:
    hub = LocalHub(tmp_path / "hub")
    old, new = make_inputs(1), make_inputs(2)
    changes = [push(hub, inputs.files, inputs.verdicts).changed for inputs in (old, new, old)]
    assert changes == [True, True, True]
    assert hub.digest() == sha256_bytes(old.files["manifest.json"])


@pytest.mark.parametrize("outcome", ["regressed", "inconclusive", "incomparable"])
def test_one_task_that_did_not_pass_stops_all(inputs: Any, outcome: str) -> None:
    inputs.verdicts["docstring"] = inputs.verdicts["docstring"].model_copy(
        update={"outcome": outcome, "reason": "Because."}
    )
    hub = FakeHub()
    with pytest.raises(NotPromotable, match=f"docstring: {outcome}; Because"):
        push(hub, inputs.files, inputs.verdicts)
    assert not hub.published


def test_a_missing_verdict_stops_all(inputs: Any) -> None:
    del inputs.verdicts["codegen"]
    with pytest.raises(NotPromotable, match="codegen: no verdict"):
        push(FakeHub(), inputs.files, inputs.verdicts)


def test_a_verdict_on_other_bytes_stops_all(inputs: Any, make_inputs: Callable[..., Any]) -> None:
    with pytest.raises(NotPromotable, match="belongs to other bytes"):
        push(FakeHub(), inputs.files, make_inputs(2).verdicts)


def test_another_tasks_verdict_does_not_count(inputs: Any) -> None:
    swapped = {"codegen": inputs.verdicts["docstring"], "docstring": inputs.verdicts["docstring"]}
    with pytest.raises(NotPromotable, match="codegen: the verdict belongs to other bytes"):
        push(FakeHub(), inputs.files, swapped)


def test_bytes_changed_after_bundling_stop_all(inputs: Any) -> None:
    files = {**inputs.files, "codegen/adapter_model.safetensors": b"other"}
    with pytest.raises(NotPromotable, match="belongs to other bytes"):
        push(FakeHub(), files, inputs.verdicts)


def test_an_evaluated_adapter_missing_from_the_bundle_stops_all(
    inputs: Any, rebuild: Callable[..., dict[str, bytes]]
) -> None:
    files = rebuild({"codegen": inputs.folders["codegen"]}, inputs.verdicts, inputs.results)
    with pytest.raises(NotPromotable, match=r"docstring: .*not in the bundle"):
        push(FakeHub(), files, inputs.verdicts)


def test_a_hub_without_the_published_bytes_is_noticed(inputs: Any) -> None:
    with pytest.raises(Unreachable, match="does not contain"):
        push(FakeHub(), inputs.files, inputs.verdicts)


def codegen_with(inputs: Any, **fields: Any) -> Results:
    task = inputs.results.tasks["codegen"].model_copy(update=fields)
    return inputs.results.model_copy(update={"tasks": {**inputs.results.tasks, "codegen": task}})


def test_numbers_that_were_edited_in_results_are_not_published(inputs: Any) -> None:
    task = inputs.results.tasks["codegen"]
    edited = codegen_with(inputs, summary={}, metrics=(), headline="judge", title="Best", key="other")
    assert verified_results(edited, inputs.results).tasks["codegen"] == task


def test_a_task_taken_out_of_results_stops_all(inputs: Any) -> None:
    smaller = inputs.results.model_copy(update={"tasks": {"docstring": inputs.results.tasks["docstring"]}})
    for written, recomputed in ((smaller, inputs.results), (inputs.results, smaller)):
        with pytest.raises(NotPromotable, match=r"codegen: results\.json does not match the evaluation"):
            verified_results(written, recomputed)


def test_edited_scores_or_counts_stop_all(inputs: Any) -> None:
    task = inputs.results.tasks["codegen"]
    scores = task.entry.model_copy(update={"scores": {}})
    more = task.verdict.model_copy(update={"n": 900})
    for change in ({"entry": scores}, {"verdict": more}):
        with pytest.raises(NotPromotable, match=r"codegen: results\.json does not match the evaluation"):
            verified_results(codegen_with(inputs, **change), inputs.results)


def test_an_edited_guard_stops_all(inputs: Any) -> None:
    task = inputs.results.tasks["codegen"]
    fields: dict[str, Any] = {"guard": "humaneval", "metric": "pass_at_1", "n": 164, "unscored": 0, "base": 0.1}
    tripped = GuardCheck(**fields, adapter=0.0, low=-0.2, delta=-0.1, high=-0.05, tripped=True)
    honest = task.verdict.model_copy(update={"outcome": "regressed", "guards": (tripped,)})
    better = tripped.model_copy(update={"adapter": 0.1, "low": -0.1, "delta": 0.0, "high": 0.1, "tripped": False})
    for guards in ((), (better,)):
        edited = task.verdict.model_copy(update={"guards": guards})
        with pytest.raises(NotPromotable, match=r"codegen: results\.json does not match the evaluation"):
            verified_results(codegen_with(inputs, verdict=edited), codegen_with(inputs, verdict=honest))
    verified = verified_results(codegen_with(inputs, verdict=honest), codegen_with(inputs, verdict=honest))
    with pytest.raises(NotPromotable, match="codegen: regressed"):
        push(FakeHub(), inputs.files, {name: old.verdict for name, old in verified.tasks.items() if old.verdict})


def test_scores_on_a_guard_that_were_edited_stop_all(inputs: Any) -> None:
    task = inputs.results.tasks["codegen"]
    edited = task.entry.model_copy(update={"guards": {"humaneval": {"one": 1.0}}})
    with pytest.raises(NotPromotable, match=r"codegen: results\.json does not match the evaluation"):
        verified_results(codegen_with(inputs, entry=edited), inputs.results)


def test_a_verdict_is_used_only_if_the_rows_confirm_it(inputs: Any) -> None:
    task = inputs.results.tasks["codegen"]
    failed = task.verdict.model_copy(update={"outcome": "regressed"})
    other = task.verdict.model_copy(update={"against": "baseline"})
    for written, recomputed, expected in (
        (task.verdict, failed, failed),
        (failed, task.verdict, failed),
        (other, task.verdict, other),
        (None, task.verdict, None),
    ):
        results = verified_results(codegen_with(inputs, verdict=written), codegen_with(inputs, verdict=recomputed))
        assert results.tasks["codegen"].verdict == expected
