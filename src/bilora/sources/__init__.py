"""Where a task's raw rows come from. Each kind of source is one module of `kinds`, found by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeVar

from bilora.kinds import SourceSettings, load_kind
from bilora.protocols import Source
from bilora.rows import Forms

_S = TypeVar("_S", bound=SourceSettings)
SOURCE_KINDS = "bilora.sources.kinds"


class SourceKind(Protocol[_S]):
    """What a kind's constant `SOURCE` has: the type of its entry in params.yaml, and how the source is built."""

    @property
    def settings(self) -> type[_S]:
        """The type of the entry `tasks.NAME.source`."""
        ...

    def build(self, settings: _S, *, seed: int, forms: Forms, root: Path) -> Source:
        """Return the source. It reads nothing yet.

        Args:
            seed: for sources that draw rows; equal seeds give equal rows.
            forms: the forms of row that the task reads; their columns are kept. Without forms all are.
            root: the folder that relative paths in `settings` belong to.
        """
        ...


def build_source(settings: _S, *, seed: int, forms: Forms, root: Path) -> Source:
    """Return the source that an entry `tasks.NAME.source` of params.yaml describes."""
    kind: SourceKind[_S] = load_kind(SOURCE_KINDS, settings.kind, "SOURCE")
    return kind.build(settings, seed=seed, forms=forms, root=root)
