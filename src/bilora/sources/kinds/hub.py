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
from bilora.sources.labelling import ColumnCheck, RowLocation, add_labels, read_columns, select_columns
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
    """Downloads the named splits in order.

    A row contains the columns that `forms` read and the labels; without forms, all columns that JSON can represent.
    """

    def __init__(self, settings: HubDatasetSettings, forms: Forms = ()) -> None:
        self._settings, self._forms = settings, forms

    def rows(self, *, progress: Progress = no_progress) -> Iterator[Row]:
        """Yield rows.

        Raises:
            Unreachable: the hub did not answer.
            BadData: the revision is not pinned, the configuration or split does not exist, or a split has
                no row with the columns of the task.
        """
        if self._settings.revision is None:
            raise BadData(
                self._settings.id,
                "is not pinned to a commit; run `bilora pin`, which writes the newest commit into params.yaml.",
            )
        for row in itertools.islice(self._all_rows(), self._settings.limit):
            progress(1)
            yield row

    def _all_rows(self) -> Iterator[Row]:
        selected = read_columns(self._forms)
        for split, hub_split in self._settings.splits.items():
            name = f"{self._settings.id}/{hub_split}"
            dataset = self._load(hub_split)
            names = getattr(dataset, "column_names", [])
            if selected is not None and names:  # so that unused images are not decoded
                dataset = dataset.select_columns([column for column in names if column in selected])
            columns = ColumnCheck(name, self._forms, names)
            for number, row in enumerate(dataset):
                columns.add(row)
                location = RowLocation(name, name, number, f"{name}:{number}")
                values = select_columns(row, selected)
                yield {**add_labels(values, location, licence=self._settings.licence), "split": split}
            columns.check()

    def _load(self, split: str) -> Dataset:
        import datasets

        settings = self._settings
        if not Path(settings.id).is_absolute() and Path(settings.id).is_dir():
            raise BadData(
                settings.id,
                "is a folder in the current directory, which `datasets` would read instead of the hub; rename it, "
                "or read its files with kind: files.",
            )
        try:
            return datasets.load_dataset(settings.id, settings.config, split=split, revision=settings.revision)
        except OSError as error:  # base class of the errors of the network, the hub's client and `datasets`
            raise Unreachable(
                f"The dataset {settings.id} at revision {settings.revision} could not be downloaded: check the "
                f"id, the network and, if it is private, HF_TOKEN, then run again "
                f"({type(error).__name__})."
            ) from None
        except ValueError as error:
            raise BadData(settings.id, f"{str(error).splitlines()[0]}") from None


def _build(settings: HubDatasetSettings, *, seed: int, forms: Forms, root: Path) -> HubDataset:
    """Return the source of the dataset."""
    return HubDataset(settings, forms)


SOURCE = SourceKind(HubDatasetSettings, _build)
