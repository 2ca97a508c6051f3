"""The types of an entry of params.yaml for a base, a source or a phase of any kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator

from bilora.plugins import (
    BASE_KINDS,
    PHASE_KINDS,
    SOURCE_KINDS,
    BaseSettings,
    PhaseSettings,
    SourceSettings,
    settings_union,
)
from bilora.yaml_settings import inline_yaml


def _require_base_kind(entry: object) -> object:
    """Refuse a base without `kind`, the syntax of earlier versions, and show the new entry."""
    if not isinstance(entry, dict) or "kind" in entry or not isinstance(entry.get("id"), str):
        return entry
    others = {name: value for name, value in entry.items() if name not in ("id", "revision", "path")}
    revision = entry.get("revision")
    new = inline_yaml({"kind": "hub", "id": entry["id"], "revision": revision or "COMMIT", **others})
    if revision is None:
        new = f"{inline_yaml({'kind': 'folder', 'path': entry['id'], **others})}, or for a model of the hub {new}"
    raise ValueError(f"`id` without `kind` is no longer read; write base: {new}")


if TYPE_CHECKING:
    AnyBase = BaseSettings
    AnyPhase = PhaseSettings
    AnySource = SourceSettings
else:
    AnyPhase = settings_union(PHASE_KINDS, "PHASE", PhaseSettings)
    AnySource = settings_union(SOURCE_KINDS, "SOURCE", SourceSettings)
    AnyBase = Annotated[settings_union(BASE_KINDS, "BASE", BaseSettings), BeforeValidator(_require_base_kind)]
