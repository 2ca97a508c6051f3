"""Experiment trackers that runs are also reported to."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from bilora.errors import NotReady


def check_sinks(names: Sequence[str]) -> None:
    """Check that all trackers in `tracking` of params.yaml are installed.

    Raises:
        NotReady: a tracker is not installed.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise NotReady(
            f'{", ".join(missing)} is not installed. Run `pip install "bilora[sinks]"`, or remove it from `tracking`.'
        )
