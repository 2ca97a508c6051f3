"""A base on the Hugging Face hub: `base: {kind: hub, id: OWNER/NAME, revision: COMMIT}`. Cards name it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from bilora.bases.base import Base, BaseKind
from bilora.errors import BiloraError, Unreachable
from bilora.kinds import BaseSettings, Commit

FETCHED_PATTERNS = ["*.json", "*.safetensors", "*.jinja"]


class HubSettings(BaseSettings):
    """A model of the hub at one commit."""

    kind: Literal["hub"]
    id: str
    revision: Annotated[Commit, Field(validate_default=True)] = ""


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
        from huggingface_hub.errors import HfHubHTTPError

        try:
            return Path(snapshot_download(self.id, revision=self.revision, allow_patterns=FETCHED_PATTERNS))
        except (HfHubHTTPError, OSError, ValueError) as error:  # a ValueError is an id that the hub does not allow
            raise self.unreadable(type(error).__name__) from None

    def unreadable(self, reason: str) -> BiloraError:
        """Return the error that the hub did not give the base."""
        return Unreachable(
            f"{self.id} at {self.revision} could not be loaded ({reason}). Check the network, or use the nano profile."
        )


def _build(settings: HubSettings, root: Path) -> HubBase:
    """Return the base at its commit."""
    return HubBase(
        id=settings.id,
        revision=settings.revision,
        hub=settings.id,
        dtype=settings.dtype,
        quantize=settings.quantize,
    )


BASE = BaseKind(HubSettings, _build)
