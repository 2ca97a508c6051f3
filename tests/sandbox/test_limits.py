"""Limits that the kernel cannot set are refused by name, not reported as missing confinement."""

from __future__ import annotations

import math

import pytest

from bilora.errors import BadData
from bilora.sandbox import ProcessSandbox


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"memory_mb": 10**12}, "memory_mb is 1000000000000; it can be from 1 to 1048576"),
        ({"memory_mb": 0}, "memory_mb is 0"),
        ({"cpu_s": math.inf, "wall_s": math.inf}, "cpu_s is inf"),
        ({"cpu_s": math.nan}, "cpu_s is nan"),
        ({"cpu_s": -1}, "cpu_s is -1"),
        ({"wall_s": 1e300}, r"wall_s is 1e\+300"),
    ],
    ids=str,
)
def test_a_limit_out_of_bounds_is_refused_at_once(limits: dict[str, float], said: str) -> None:
    with pytest.raises(BadData, match=said) as caught:
        ProcessSandbox(workers=1, **limits)  # type: ignore[arg-type]
    assert "weak" not in str(caught.value) and caught.value.exit_code == 2
