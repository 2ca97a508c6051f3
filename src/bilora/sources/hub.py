"""Rows from a data set of the Hugging Face hub, at a pinned revision."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from bilora.errors import BadData, Unreachable
from bilora.params import HubSource
from bilora.protocols import Progress, no_progress
from bilora.records import Row
from bilora.rows import RowForm
from bilora.sources.labelling import Columns, kept, labelled, read_columns


class HubDataset:
    """The source: the named splits one after the other, each kept as official.

    Only the columns that `forms` read are kept, and the labels; without forms all that JSON can hold.
    """

    def __init__(self, params: HubSource, forms: Sequence[type[RowForm]] = ()) -> None:
        self._params, self._forms = params, forms

    def rows(self, *, progress: Progress = no_progress) -> Iterator[Row]:
        """Yield rows.

        Raises:
            Unreachable: the hub did not answer.
            BadData: its revision is not pinned, it has no such configuration or split, or no row of a
                split has what the task reads.
        """
        if self._params.revision is None:
            commit = self._newest() or "the commit that the data set's page on the hub shows"
            raise BadData(self._params.id, f"`revision` is not pinned; put {commit} into params.yaml.")
        for row in itertools.islice(self._all(), self._params.limit):
            progress(1)
            yield row

    def _all(self) -> Iterator[Row]:
        wanted = read_columns(self._forms)
        for split, theirs in self._params.splits.items():
            name = f"{self._params.id}/{theirs}"
            dataset = self._load(theirs)
            names = getattr(dataset, "column_names", [])
            if wanted is not None and names:  # an image that is not needed is not decoded
                dataset = dataset.select_columns([column for column in names if column in wanted])
            there = Columns(name, self._forms, names)
            for number, row in enumerate(dataset):
                there.add(row)
                place = f"{name}:{number}"
                terms = self._params.licence
                ready = labelled(kept(row, wanted), name=name, file=name, number=number, licence=terms, origin=place)
                yield {**ready, "split": split}
            there.check()

    def _newest(self) -> str | None:
        """Return the hub's newest commit of this data set, if the hub says it."""
        import httpx2
        from huggingface_hub import HfApi

        try:
            return HfApi().dataset_info(self._params.id, timeout=10).sha
        except (OSError, ValueError, httpx2.HTTPError):
            return None

    def _load(self, split: str) -> Any:
        import datasets

        params = self._params
        try:
            return datasets.load_dataset(params.id, params.config, split=split, revision=params.revision)
        except OSError as error:  # what the network, the hub's client and `datasets` raise derives from it
            raise Unreachable(
                f"The data set {params.id} at revision {params.revision} could not be fetched: check the "
                f"id, the network and, if it is private, HF_TOKEN, then run again "
                f"({type(error).__name__})."
            ) from None
        except ValueError as error:
            raise BadData(params.id, f"{str(error).splitlines()[0]}") from None
