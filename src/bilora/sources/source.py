"""A source of raw rows. Each kind of source is one module of `kinds`, found by its name."""

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
    """Returns the source that an entry describes; it reads nothing yet."""

    def __call__(self, settings: _In, *, seed: int, forms: Forms, root: Path) -> Source:
        """Return the source.

        Args:
            seed: for sources that draw rows; equal seeds give equal rows.
            forms: the forms of row that the task reads; their columns are kept. Without forms all are.
            root: the folder that relative paths in `settings` belong to.
        """
        ...


@dataclass(frozen=True)
class SourceKind(Generic[_S]):
    """A kind of source, the constant `SOURCE` of its module.

    `settings` is the type of its entry `tasks.NAME.source` in params.yaml, `build` returns the source of an entry.
    """

    settings: type[_S]
    build: BuildSource[_S]


def build_source(settings: SourceSettings, *, seed: int, forms: Forms, root: Path) -> Source:
    """Return the source that an entry `tasks.NAME.source` of params.yaml describes."""
    kind: SourceKind[SourceSettings] = load_kind(SOURCE_KINDS, settings.kind, "SOURCE")
    return kind.build(settings, seed=seed, forms=forms, root=root)
