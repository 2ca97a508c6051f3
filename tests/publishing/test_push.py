"""Push: nothing leaves without a passing verdict on exactly its bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.fakes import FakeHub

from bilora.errors import NotPromotable, Unreachable
from bilora.publishing.local_hub import LocalHub
from bilora.publishing.push import push
from bilora.storage import sha256_bytes


def test_passing_adapters_are_published(tmp_path: Path, made: Any) -> None:
    hub = LocalHub(tmp_path / "hub")
    result = push(hub, made.files, made.verdicts)
    assert result.changed
    assert result.digest == hub.digest() == sha256_bytes(made.files["manifest.json"])
    assert (Path(result.location) / "codegen" / "adapter_config.json").is_file()


def test_a_second_push_changes_nothing(tmp_path: Path, made: Any) -> None:
    hub = LocalHub(tmp_path / "hub")
    push(hub, made.files, made.verdicts)
    assert not push(hub, made.files, made.verdicts).changed


def test_a_rollback_is_a_change(tmp_path: Path, make: Callable[..., Any]) -> None:
    hub = LocalHub(tmp_path / "hub")
    one, two = make(1), make(2)
    changes = [push(hub, made.files, made.verdicts).changed for made in (one, two, one)]
    assert changes == [True, True, True]
    assert hub.digest() == sha256_bytes(one.files["manifest.json"])


@pytest.mark.parametrize("outcome", ["regressed", "inconclusive", "incomparable"])
def test_one_task_that_did_not_pass_stops_all(made: Any, outcome: str) -> None:
    made.verdicts["docstring"] = made.verdicts["docstring"].model_copy(
        update={"outcome": outcome, "reason": "Because."}
    )
    hub = FakeHub()
    with pytest.raises(NotPromotable, match=f"docstring: {outcome}; Because"):
        push(hub, made.files, made.verdicts)
    assert not hub.published


def test_a_missing_verdict_stops_all(made: Any) -> None:
    del made.verdicts["codegen"]
    with pytest.raises(NotPromotable, match="codegen: no verdict"):
        push(FakeHub(), made.files, made.verdicts)


def test_a_verdict_on_other_bytes_stops_all(made: Any, make: Callable[..., Any]) -> None:
    with pytest.raises(NotPromotable, match="about other bytes"):
        push(FakeHub(), made.files, make(2).verdicts)


def test_another_tasks_verdict_does_not_count(made: Any) -> None:
    swapped = {"codegen": made.verdicts["docstring"], "docstring": made.verdicts["docstring"]}
    with pytest.raises(NotPromotable, match="codegen: the verdict is about other bytes"):
        push(FakeHub(), made.files, swapped)


def test_bytes_changed_after_bundling_stop_all(made: Any) -> None:
    files = {**made.files, "codegen/adapter_model.safetensors": b"other"}
    with pytest.raises(NotPromotable, match="about other bytes"):
        push(FakeHub(), files, made.verdicts)


def test_a_judged_adapter_left_out_stops_all(made: Any, rebuild: Callable[..., dict[str, bytes]]) -> None:
    files = rebuild({"codegen": made.folders["codegen"]}, made.verdicts, made.results)
    with pytest.raises(NotPromotable, match=r"docstring: .*not in the bundle"):
        push(FakeHub(), files, made.verdicts)


def test_a_hub_that_does_not_serve_it_is_noticed(made: Any) -> None:
    with pytest.raises(Unreachable, match="does not serve"):
        push(FakeHub(), made.files, made.verdicts)
