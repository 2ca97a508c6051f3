"""Names of destinations that are no folders."""

from __future__ import annotations

HUB_DATASETS = "hf://datasets/"
"""Begins the name of a dataset repository of the hub; OWNER/NAME follows."""
UNRECORDED = "?"
"""The destination of what an outbox of version 1 exported to a place that it did not record."""
