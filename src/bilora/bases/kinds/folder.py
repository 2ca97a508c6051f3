"""A base in a folder of the checkout: `base: {kind: folder, path: models/NAME}`. It is published with its adapters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bilora.bases.base import Base, BaseKind
from bilora.kinds import BaseSettings, Dtype


class FolderSettings(BaseSettings):
    """`path` is a folder with config.json, tokenizer.json and safetensors."""

    kind: Literal["folder"]
    path: str


@dataclass(frozen=True, kw_only=True)
class FolderBase(Base):
    """A base in a folder."""

    path: Path

    @classmethod
    def at(cls, path: Path | str, *, dtype: Dtype = "float32") -> FolderBase:
        """Return the base in a folder, for callers without params.yaml; adapters name it by this path."""
        return cls(id=Path(path).as_posix(), path=Path(path), dtype=dtype)

    def folder(self) -> Path:
        """Return the folder."""
        return self.path


def _build(settings: FolderSettings, root: Path) -> FolderBase:
    """Return the base in a folder below `root`; adapters name it by its path in params.yaml."""
    path = Path(settings.path)
    return FolderBase(id=path.as_posix(), dtype=settings.dtype, quantize=settings.quantize, path=root / path)


BASE = BaseKind(FolderSettings, _build)
