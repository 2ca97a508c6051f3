"""The kind `hub`: rows from a dataset of the Hugging Face hub, at a pinned revision."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bilora.errors import BadData, Unreachable
from bilora.plugins import Commit, SourceSettings
from bilora.protocols import Progress, no_progress
from bilora.records import Row
from bilora.rows import Forms
from bilora.sources.labelling import Columns, RowPlace, kept, labelled, read_columns
from bilora.sources.source import SourceKind
from bilora.yaml_settings import Count

if TYPE_CHECKING:
    from datasets import Dataset


class HubDatasetSettings(SourceSettings):
    """A dataset of the hub at one commit."""

    kind: Literal["hub"]
    id: str = Field(description="repository of the dataset")
    revision: Commit | None = Field(
        default=None, description="its commit, which `bilora pin` writes; needed to download"
    )
    config: str | None = Field(default=None, description="the dataset's configuration")
    splits: dict[Literal["train", "validation", "test"], str] = Field(description="its name of each split")
    licence: str = Field(description="licence of rows that do not name one")
    limit: Count | None = Field(default=None, description="read only the first rows, as many as this")


class HubDataset:
    """Fetches the named splits one after the other.

    Only the columns that `forms` read are kept, and the labels; without forms all that JSON can hold.
    """

    def __init__(self, settings: HubDatasetSettings, forms: Forms = ()) -> None:
        self._settings, self._forms = settings, forms

    def rows(self, *, progress: Progress = no_progress) -> Iterator[Row]:
        """Yield rows.

        Raises:
            Unreachable: the hub did not answer.
            BadData: its revision is not pinned, it has no such configuration or split, or no row of a
                split has what the task reads.
        """
        if self._settings.revision is None:
            raise BadData(
                self._settings.id,
                "it is not pinned to a commit; run `bilora pin`, which writes the newest one into params.yaml.",
            )
        for row in itertools.islice(self._all_rows(), self._settings.limit):
            progress(1)
            yield row

    def _all_rows(self) -> Iterator[Row]:
        wanted = read_columns(self._forms)
        for split, hub_split in self._settings.splits.items():
            name = f"{self._settings.id}/{hub_split}"
            dataset = self._load(hub_split)
            names = getattr(dataset, "column_names", [])
            if wanted is not None and names:  # an image that is not needed is not decoded
                dataset = dataset.select_columns([column for column in names if column in wanted])
            columns = Columns(name, self._forms, names)
            for number, row in enumerate(dataset):
                columns.add(row)
                place = RowPlace(name, name, number, f"{name}:{number}")
                yield {**labelled(kept(row, wanted), place, licence=self._settings.licence), "split": split}
            columns.check()

    def _load(self, split: str) -> Dataset:
        import datasets

        wanted = self._settings
        if not Path(wanted.id).is_absolute() and Path(wanted.id).is_dir():
            raise BadData(
                wanted.id,
                "is a folder in the current directory, which `datasets` would read in place of the hub; rename it, "
                "or read its files with kind: files.",
            )
        try:
            return datasets.load_dataset(wanted.id, wanted.config, split=split, revision=wanted.revision)
        except OSError as error:  # what the network, the hub's client and `datasets` raise derives from it
            raise Unreachable(
                f"The dataset {wanted.id} at revision {wanted.revision} could not be fetched: check the "
                f"id, the network and, if it is private, HF_TOKEN, then run again "
                f"({type(error).__name__})."
            ) from None
        except ValueError as error:
            raise BadData(wanted.id, f"{str(error).splitlines()[0]}") from None


def _build(settings: HubDatasetSettings, *, seed: int, forms: Forms, root: Path) -> HubDataset:
    """Return what fetches the dataset."""
    return HubDataset(settings, forms)


SOURCE = SourceKind(HubDatasetSettings, _build)
