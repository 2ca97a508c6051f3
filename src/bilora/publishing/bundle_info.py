"""What the cards of a bundle say beside the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from bilora.bases.base import Base
from bilora.records import Message
from bilora.requests import SamplingParams

BASE_FOLDER = "base"


class CardDataset(Protocol):
    """A dataset of the hub that a task's rows come from, as the entry of its source names it."""

    @property
    def id(self) -> str:
        """OWNER/NAME."""
        ...

    @property
    def config(self) -> str | None:
        """The dataset's configuration; None for its default."""
        ...

    @property
    def revision(self) -> str | None:
        """The commit."""
        ...


@dataclass(frozen=True)
class CardTask:
    """One task of a bundle.

    Attributes:
        messages: a chat that asks one question as the adapter was measured, in the roles that the chat template has.
        sampling: how the measured answers were chosen.
        licences: of all its rows, as the data name them.
        dataset: of the hub that its rows come from, if they do.
    """

    messages: tuple[Message, ...]
    sampling: SamplingParams
    licences: tuple[str, ...]
    dataset: CardDataset | None = None


@dataclass(frozen=True)
class BundleInfo:
    """What all cards of a bundle say.

    Attributes:
        base: what each adapter_config.json must name; if neither a hub id nor a package gives it to others, its files
            are in the bundle, too.
        licence: of the base, as its own files name it.
        tokenizer_files: the files that are published with every adapter, name → bytes.
        stop_ids, pad_id: the tokens that end an answer, and the one that pads a batch.
        tasks: by name; every adapter of the bundle has one.
        name: the bundle's name on the cards.
        repository: the hub id under which the bundle will be found, if it goes there.
    """

    base: Base
    licence: str
    tokenizer_files: Mapping[str, bytes]
    stop_ids: Sequence[int]
    pad_id: int | None
    tasks: Mapping[str, CardTask]
    name: str = "bilora"
    repository: str | None = None

    @property
    def base_path(self) -> str | None:
        """The base's folder in the bundle; None if it is a public model."""
        return BASE_FOLDER if self.base.hub is None else None

    @property
    def bundle(self) -> str:
        """Where a reader finds the bundle."""
        return self.repository or "path/to/this/bundle"

    def adapter(self, task: str) -> str:
        """Return where a reader finds one adapter alone."""
        return f"{self.repository}-{task}" if self.repository else f"path/to/this/bundle/{task}"

    @property
    def base_name(self) -> str:
        """The base as a reader knows it."""
        if self.base_path:
            return f"the base in `{self.bundle}/{self.base_path}`"
        return f"`{self.base.hub}`" + (f" at revision `{self.base.revision}`" if self.base.revision else "")

    def load_base_code(self) -> list[str]:
        """Return the lines of Python that load the base in the precision that the adapters were measured in."""
        if self.base_path:
            arguments = f'"{self.bundle}", subfolder="{self.base_path}", dtype="{self.base.precision}"'
            return [f"base = AutoModelForCausalLM.from_pretrained({arguments})"]
        return self.base.loading_code()
