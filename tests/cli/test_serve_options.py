"""Options of `bilora serve` take effect."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.checkouts import ROOT

from bilora.cli import serve
from bilora.errors import BadData
from bilora.inference.engine import ContinuousBatchingEngine
from bilora.inference.free_cores import FreeCores
from bilora.workspace import Workspace


@pytest.mark.parametrize("threads", [1, None])
def test_threads_are_fixed_or_as_many_as_cores_are_free(
    adapted: Path, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(adapted)
    monkeypatch.setattr(FreeCores, "count", lambda _: 7)
    engine = serve._server_config(Workspace(Path()), None, batch=1, queue=1, threads=threads).engine
    assert isinstance(engine, ContinuousBatchingEngine) and engine._scheduler.count_threads is not None
    assert engine._scheduler.count_threads() == (threads or 7)


def test_adapters_come_from_a_folder_or_a_pinned_commit() -> None:
    assert serve._adapter_root(None) is None
    assert serve._adapter_root(str(ROOT / "models")) == ROOT / "models"
    with pytest.raises(BadData, match="needs a pinned commit"):
        serve._adapter_root("owner/name@main")
