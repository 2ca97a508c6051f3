"""The report's section on a run record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard

from bilora.storage import dump_json


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a JSON value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def time_and_memory(run: Mapping[str, object]) -> str:
    """Return a sentence on the training's time and memory, measured and planned; empty if not recorded."""
    measured = _cost(run.get("duration_s"), run.get("peak_memory_bytes"))
    planned = _cost(run.get("planned_s"), run.get("planned_memory_bytes"))
    return f"Training took {measured}" + (f"; {planned} were planned." if planned else ".") if measured else ""


def _cost(seconds: object, size: object) -> str:
    if not is_number(seconds) or not is_number(size):
        return ""
    return f"{seconds / 60:.1f} min and {size / 2**30:.1f} GiB"


def run_lines(run: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return a run record as pairs of key and text; the parameters remain one block of JSON."""
    lines = []
    for key, value in run.items():
        if key != "params" and isinstance(value, Mapping):
            lines += [(f"{key} · {inner_key}", _text(inner)) for inner_key, inner in sorted(value.items())]
        else:
            lines.append((key, _text(value)))
    return lines


def _text(value: object) -> str:
    return value if isinstance(value, str) else dump_json(value, indent=2)
