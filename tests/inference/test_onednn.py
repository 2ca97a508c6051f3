"""oneDNN is off only if it is slower, and only during that pass."""

from __future__ import annotations

import pytest
import torch

from bilora.inference.torch import cpu_tuning

WEIGHT = torch.zeros(8, 4)


def enabled() -> bool:
    return bool(torch._C._get_mkldnn_enabled())  # type: ignore[attr-defined]


@pytest.mark.parametrize(("slower", "rows", "inside"), [(True, 1, False), (False, 1, True), (True, 500, True)])
def test_it_is_switched_for_the_pass_only(
    slower: bool, rows: int, inside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_tuning, "_faster_without_onednn", lambda *_: slower)
    assert enabled()
    with pytest.raises(RuntimeError, match="in the pass"), cpu_tuning.onednn_if_faster(WEIGHT, rows):
        assert enabled() is inside
        raise RuntimeError("in the pass")
    assert enabled()


def test_it_is_tried_once_for_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_tuning._faster_without_onednn.cache_clear()
    for rows in (3, 4, 3):
        with cpu_tuning.onednn_if_faster(WEIGHT, rows):
            pass
    assert cpu_tuning._faster_without_onednn.cache_info().misses == 1
    assert enabled()
