"""A base in a folder or a GGUF file of the checkout: `base: {kind: folder, path: models/NAME}`.

It is published with its adapters.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bilora.bases.base import Base, BaseKind
from bilora.bases.gguf_base import GGUFBase
from bilora.bases.gguf_folder import unchanged_sha256
from bilora.errors import BadData
from bilora.plugins import BaseSettings, Dtype


class FolderSettings(BaseSettings):
    """`path` is a folder with config.json, tokenizer.json and safetensors, or a GGUF file."""

    kind: Literal["folder"]
    path: str

    @property
    def has_gguf(self) -> bool:
        """Whether it is a GGUF file, which llama.cpp serves as it is."""
        return Path(self.path).suffix == ".gguf"


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


@dataclass(frozen=True, kw_only=True)
class GGUFFileBase(GGUFBase):
    """A base in a GGUF file; the files that it is converted into identify it and are published."""

    path: Path

    @property
    def weights_note(self) -> str:
        """Which weights an adapter is trained on."""
        return self._dequantised(self.path.name, "this repository")

    def gguf_file(self) -> Path:
        """Return the file.

        Raises:
            BadData: there is none.
        """
        if not self.path.is_file():
            raise BadData(self.id, "there is no GGUF file here; `base.path` must name one, or a folder.")
        return self.path

    def gguf_sha256(self) -> str:
        """Return the hash of the file."""
        return unchanged_sha256(self.gguf_file())


def _build(settings: FolderSettings, root: Path, cache: Path) -> FolderBase | GGUFFileBase:
    """Return the base in a folder or file below `root`; adapters name it by its path in params.yaml."""
    path = Path(settings.path)
    id, place = path.as_posix(), root / path
    if settings.has_gguf:
        return GGUFFileBase(id=id, dtype=settings.dtype, quantize=settings.quantize, path=place, cache=cache)
    return FolderBase(id=id, dtype=settings.dtype, quantize=settings.quantize, path=place)


BASE = BaseKind(FolderSettings, _build)
