"""The licence of a bundle and of each adapter, derived from the licences of base and data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from bilora.publishing.bundle_info import BundleInfo

PERMISSIVE = frozenset(
    {"apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc0-1.0", "isc", "mit", "unlicense", "zlib"}
)
"""Hub ids of licences that restrict neither use nor the licence of derived work."""

SAME = "All parts have the same licence, and the adapters have it too."
OTHER = (
    "The licences of the parts differ, restrict use or sharing, or are unknown, so no single licence applies to the "
    "adapters: the terms of every part apply."
)


def licence_fields(tasks: Sequence[str], info: BundleInfo) -> dict[str, str]:
    """Return the licence fields of a card's front matter.

    If base and data have the same permissive licence, it is that one. Else it is `other`, with a name made of all
    licences, so that it is never more permissive than a part's.
    """
    names = sorted({name for _, licences in _parts(tasks, info) for licence in licences for name in _names(licence)})
    if len(names) == 1 and names[0] in PERMISSIVE:
        return {"license": names[0]}
    return {"license": "other", "license_name": "-and-".join(names)}


def licence_section(tasks: Sequence[str], info: BundleInfo) -> list[str]:
    """Return a card's section on the licences of the base and of each task's data."""
    return [
        "## Licence",
        "",
        "| Part | Licence |",
        "|---|---|",
        *(f"| {part} | {', '.join(map(_table_cell, licences))} |" for part, licences in _parts(tasks, info)),
        "",
        OTHER if "license_name" in licence_fields(tasks, info) else SAME,
        "",
    ]


def _parts(tasks: Sequence[str], info: BundleInfo) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Yield each part with its licences."""
    yield info.base_name, (info.licence,)
    for task in tasks:
        yield f"data of `{task}`", info.tasks[task].licences


def _table_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _names(licence: str) -> list[str]:
    """Return a licence as hub ids: one per term of an SPDX expression if its only operator is AND."""
    terms = [licence] if re.search(r"[()]|\bOR\b", licence) else re.split(r"\s+AND\s+", licence)
    return [re.sub(r"[^a-z0-9.]+", "-", term.lower()).strip("-") for term in terms]
