"""What a bundle and its model cards contain beside adapters and results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from bilora.bases.base import Base
from bilora.records import Message
from bilora.requests import SamplingParams

BASE_FOLDER = "base"


class CardDataset(Protocol):
    """The hub dataset of a task's rows, from the task's `source` in params.yaml."""

    @property
    def id(self) -> str:
        """OWNER/NAME."""
        ...

    @property
    def config(self) -> str | None:
        """The dataset's configuration; None for the default."""
        ...

    @property
    def revision(self) -> str | None:
        """The commit."""
        ...


@dataclass(frozen=True)
class CardTask:
    """One task of a bundle.

    Attributes:
        messages: the example's chat, with the roles that the chat template supports.
        sampling: the sampling parameters of the evaluation.
        licences: the licences of all its rows.
        dataset: the hub dataset of its rows, if any.
    """

    messages: tuple[Message, ...]
    sampling: SamplingParams
    licences: tuple[str, ...]
    dataset: CardDataset | None = None


@dataclass(frozen=True)
class BundleInfo:
    """Everything that a bundle needs beside adapters and results.

    Attributes:
        base: the base that each adapter_config.json must name. The bundle contains its files if it is available
            neither on the hub nor as a package.
        licence: the base's licence.
        tokenizer_files: the files published with every adapter, name → bytes.
        stop_ids, pad_id: the EOS tokens and the padding token.
        tasks: by name; every adapter of the bundle has an entry.
        name: the bundle's name on the cards.
        repository: the bundle's hub id; None if it is published elsewhere.
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
        """The base's folder in the bundle; None for a public model."""
        return BASE_FOLDER if self.base.hub is None else None

    @property
    def bundle_location(self) -> str:
        """The bundle's hub id, or a placeholder for its path."""
        return self.repository or "path/to/this/bundle"

    def adapter_location(self, task: str) -> str:
        """Return the hub id of an adapter's repository, or a placeholder for its path."""
        return f"{self.repository}-{task}" if self.repository else f"path/to/this/bundle/{task}"

    @property
    def base_name(self) -> str:
        """The base's name on the cards."""
        if self.base_path:
            return f"the base in `{self.bundle_location}/{self.base_path}`"
        return f"`{self.base.hub}`" + (f" at revision `{self.base.revision}`" if self.base.revision else "")

    def load_base_code(self) -> list[str]:
        """Return Python code that loads the base in the precision of the evaluation, as lines."""
        if self.base_path:
            arguments = f'"{self.bundle_location}", subfolder="{self.base_path}", dtype="{self.base.precision}"'
            return [f"base = AutoModelForCausalLM.from_pretrained({arguments})"]
        return self.base.loading_code()
