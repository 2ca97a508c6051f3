"""`dtype: auto` is 16-bit only where the processor is clearly faster with it."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from bilora.bases import precision
from bilora.bases.precision import resolve_dtype, resolve_quantize


@pytest.fixture(autouse=True)
def _no_earlier_trial() -> Iterator[None]:
    precision._fastest_precision.cache_clear()
    yield
    precision._fastest_precision.cache_clear()


@pytest.mark.parametrize(("seconds16", "expected"), [(0.5, "bfloat16"), (0.9, "float32"), (3.0, "float32")])
def test_auto_is_16_bit_only_where_it_is_clearly_faster(
    seconds16: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(precision, "_seconds", lambda dtype: seconds16 if dtype == "bfloat16" else 1.0)
    assert resolve_dtype("auto") == expected


def test_the_trial_decides_once_and_leaves_the_threads_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    threads = torch.get_num_threads()
    decided = resolve_dtype("auto")
    assert decided in ("bfloat16", "float32") and torch.get_num_threads() == threads
    monkeypatch.setattr(precision, "_seconds", lambda dtype: 1.0)
    assert resolve_dtype("auto") == decided


def test_any_other_dtype_means_itself() -> None:
    assert [resolve_dtype(name) for name in ("float32", "bfloat16", "float16")] == ["float32", "bfloat16", "float16"]


@pytest.mark.parametrize(("gigabytes", "expected"), [(80, None), (24, None), (16, "nf4")])
def test_a_base_is_trained_in_4_bit_where_the_gpu_has_little_memory_for_it(
    gigabytes: int, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    card = SimpleNamespace(total_memory=gigabytes * 10**9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    weights = 7_642_000_000  # Phi-3-mini's in bfloat16
    assert resolve_quantize("auto", lambda: weights) == expected
    assert resolve_quantize("nf4", lambda: weights) == "nf4" and resolve_quantize(None, lambda: weights) is None


def test_without_a_gpu_auto_is_no_4_bit_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_quantize("auto", lambda: 10**12) is None
