"""A base in a local folder or GGUF file: `base: {kind: folder, path: models/NAME}`.

It is published with its adapters.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from bilora.bases.base import Base, BaseKind
from bilora.bases.gguf_base import GGUFBase
from bilora.bases.gguf_conversion import cached_sha256
from bilora.errors import BadData
from bilora.plugins import BaseSettings, Dtype


class FolderSettings(BaseSettings):
    """A local folder or GGUF file."""

    kind: Literal["folder"]
    path: str = Field(description="a folder with config.json, tokenizer.json and safetensors, or a GGUF file")

    @property
    def has_gguf(self) -> bool:
        """Whether `path` is a GGUF file, which llama.cpp can serve."""
        return Path(self.path).suffix == ".gguf"


@dataclass(frozen=True, kw_only=True)
class FolderBase(Base):
    """A base in a folder."""

    path: Path

    @classmethod
    def at(cls, path: Path | str, *, dtype: Dtype = "float32") -> FolderBase:
        """Return the base in a folder, for callers without params.yaml; its id is this path."""
        return cls(id=Path(path).as_posix(), path=Path(path), dtype=dtype)

    def folder(self) -> Path:
        """Return the folder."""
        return self.path


@dataclass(frozen=True, kw_only=True)
class GGUFFileBase(GGUFBase):
    """A base in a local GGUF file; the converted files identify it and are published."""

    path: Path

    @property
    def weights_note(self) -> str:
        """See `Base.weights_note`."""
        return self._dequantised_note(self.path.name, "this repository")

    def gguf_file(self) -> Path:
        """Return the file.

        Raises:
            BadData: it does not exist.
        """
        if not self.path.is_file():
            raise BadData(self.id, "there is no GGUF file here; `base.path` must name a GGUF file or a folder.")
        return self.path

    def gguf_sha256(self) -> str:
        """Return the hash of the file."""
        return cached_sha256(self.gguf_file())


def _build(settings: FolderSettings, root: Path, cache: Path) -> FolderBase | GGUFFileBase:
    """Return the base in a folder or file below `root`; its id is the path in params.yaml."""
    path = Path(settings.path)
    id, full_path = path.as_posix(), root / path
    if settings.has_gguf:
        return GGUFFileBase(id=id, dtype=settings.dtype, quantize=settings.quantize, path=full_path, cache=cache)
    return FolderBase(id=id, dtype=settings.dtype, quantize=settings.quantize, path=full_path)


BASE = BaseKind(FolderSettings, _build)
