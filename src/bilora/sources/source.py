"""Build a source of raw rows from params.yaml. Each kind of source is a module of `kinds` with its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from bilora.plugins import SOURCE_KINDS, SourceSettings, load_kind
from bilora.protocols import Source
from bilora.rows import Forms

_S = TypeVar("_S", bound=SourceSettings)
_In = TypeVar("_In", bound=SourceSettings, contravariant=True)


class BuildSource(Protocol[_In]):
    """Builds a source from its settings, without reading any data."""

    def __call__(self, settings: _In, *, seed: int, forms: Forms, root: Path) -> Source:
        """Return the source.

        Args:
            seed: seed of sources that sample rows; equal seeds give equal rows.
            forms: row forms that the task reads. Rows contain their columns; without forms, all columns.
            root: folder that relative paths in `settings` refer to.
        """
        ...


@dataclass(frozen=True)
class SourceKind(Generic[_S]):
    """A kind of source: the constant `SOURCE` of its module.

    `settings` is the type of the entry `tasks.NAME.source` in params.yaml; `build` returns the entry's source.
    """

    settings: type[_S]
    build: BuildSource[_S]


def build_source(settings: SourceSettings, *, seed: int, forms: Forms, root: Path) -> Source:
    """Return the source of an entry `tasks.NAME.source` in params.yaml."""
    kind: SourceKind[SourceSettings] = load_kind(SOURCE_KINDS, settings.kind, "SOURCE")
    return kind.build(settings, seed=seed, forms=forms, root=root)
