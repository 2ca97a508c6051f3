"""A base on the Hugging Face hub: `base: {kind: hub, id: OWNER/NAME, revision: COMMIT}`. Cards name it.

With `file: NAME.gguf` it is that file of the repository, converted.
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
from bilora.bases.gguf_folder import conversion_identity, unchanged_sha256
from bilora.bases.licence import MODEL_CARD, UNKNOWN_LICENCE, model_card_licence
from bilora.errors import BiloraError, Unreachable
from bilora.plugins import BaseSettings, Commit

FETCHED_PATTERNS = ["*.json", "*.safetensors", "*.jinja", MODEL_CARD]


class HubSettings(BaseSettings):
    """A model of the hub at one commit; `file` is a GGUF file of its repository, without which safetensors are read."""

    kind: Literal["hub"]
    id: str
    revision: Annotated[Commit, Field(validate_default=True)] = ""
    file: Annotated[str, StringConstraints(pattern=r"\.gguf$")] | None = None

    @property
    def has_gguf(self) -> bool:
        """Whether it is a GGUF file, which llama.cpp serves as it is."""
        return self.file is not None


@dataclass(frozen=True, kw_only=True)
class HubBase(Base):
    """A base that is fetched from the hub into its cache, once."""

    @property
    def location(self) -> str:
        """Its hub id, so that only those files are fetched that are read.

        Where the current directory has a folder of that name, transformers would read it in place of the hub.
        """
        return str(self.folder()) if Path(self.id).is_dir() else self.id

    @property
    def download(self) -> str:
        """What its first use fetches."""
        return f"{self.id} at {self.revision}, once, into the hub cache"

    def files(self) -> dict[str, str]:
        """Return nothing: the commit pins its files."""
        return {}

    def folder(self) -> Path:
        """Return the folder of the hub cache that has its files, which are fetched first if need be.

        Raises:
            Unreachable: the hub did not give them.
        """
        from huggingface_hub import snapshot_download

        with _fetching(self):
            return Path(snapshot_download(self.id, revision=self.revision, allow_patterns=FETCHED_PATTERNS))

    def licence(self) -> str:
        """Return the licence that its model card names; `unknown` if it has no card, or that names none.

        Raises:
            Unreachable: the hub did not give the card.
        """
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import RemoteEntryNotFoundError

        with _fetching(self):
            try:
                return model_card_licence(Path(hf_hub_download(self.id, MODEL_CARD, revision=self.revision)))
            except RemoteEntryNotFoundError:
                return UNKNOWN_LICENCE

    def unreadable(self, reason: str) -> BiloraError:
        """Return the error that the hub did not give the base."""
        return _unreachable(self, reason)


@dataclass(frozen=True, kw_only=True)
class HubGGUFBase(GGUFBase):
    """A base in a GGUF file of a repository of the hub."""

    file: str

    @property
    def download(self) -> str:
        """What its first use fetches."""
        return f"{self.file} of {self.id} at {self.revision}, once, into the hub cache"

    @property
    def weights_note(self) -> str:
        """Which weights an adapter is trained on."""
        return self._dequantised(self.file, f"{self.id} at {self.revision}")

    def loading_code(self) -> list[str]:
        """Return the line of Python that loads the file."""
        return [self._load_call(f'"{self.id}", revision="{self.revision}", gguf_file="{self.file}"')]

    @property
    def identity(self) -> str:
        """What pins the base: a hash of the commit, of the file's name and of its conversion. No file is read."""
        return conversion_identity(f"{self.revision}/{self.file}")

    def files(self) -> dict[str, str]:
        """Return nothing: the commit pins its file."""
        return {}

    def gguf_file(self) -> Path:
        """Return the file in the hub cache, which is fetched first if need be.

        Raises:
            Unreachable: the hub did not give it.
        """
        from huggingface_hub import hf_hub_download

        with _fetching(self):
            return Path(hf_hub_download(self.id, self.file, revision=self.revision))

    def gguf_sha256(self) -> str:
        """Return the hash of the file."""
        return unchanged_sha256(self.gguf_file())


@contextmanager
def _fetching(base: Base) -> Iterator[None]:
    """Turn what huggingface_hub raises into one sentence on the base."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except (HfHubHTTPError, OSError, ValueError) as error:  # a ValueError is an id that the hub does not allow
        raise _unreachable(base, type(error).__name__) from None


def _unreachable(base: Base, reason: str) -> Unreachable:
    return Unreachable(
        f"{base.id} at {base.revision} could not be loaded ({reason}). "
        "Check the network, or run `bilora profile use smollm2`, whose base is a package."
    )


def _build(settings: HubSettings, root: Path, cache: Path) -> HubBase | HubGGUFBase:
    """Return the base at its commit."""
    id, revision, dtype, quantize = settings.id, settings.revision, settings.dtype, settings.quantize
    if settings.file is None:
        return HubBase(id=id, revision=revision, hub=id, dtype=dtype, quantize=quantize)
    return HubGGUFBase(
        id=id, revision=revision, hub=id, dtype=dtype, quantize=quantize, cache=cache, file=settings.file
    )


BASE = BaseKind(HubSettings, _build)
