"""Names of destinations that are not folders."""

from __future__ import annotations

HUB_DATASETS = "hf://datasets/"
"""The prefix of a dataset repository on the hub; OWNER/NAME follows."""
UNRECORDED = "?"
"""The unknown destination of an outbox of version 1, which did not record destinations."""
