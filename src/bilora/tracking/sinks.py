"""Trackers that runs are reported to beside the run folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from bilora.errors import NotReady


def check_sinks(names: Sequence[str]) -> None:
    """Refuse to report to a tracker that is not installed.

    Raises:
        NotReady: one is not.
    """
    absent = [name for name in names if importlib.util.find_spec(name) is None]
    if absent:
        raise NotReady(
            f'{", ".join(absent)} is not installed. Run `pip install "bilora[sinks]"`, or take it out of `tracking`.'
        )
