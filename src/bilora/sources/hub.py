"""Rows from a data set of the Hugging Face hub, at a pinned revision."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from bilora.errors import BadData, Unreachable
from bilora.params import HubSource
from bilora.ports import Progress, silent
from bilora.records import Row
from bilora.sources.files import labelled


class HubDataset:
    """The source: the named splits one after the other, each kept as official."""

    def __init__(self, params: HubSource) -> None:
        self._params = params

    def rows(self, *, progress: Progress = silent) -> Iterator[Row]:
        """Yield rows.

        Raises:
            Unreachable: the hub did not answer.
            BadData: its revision is not pinned, or it has no such configuration or split.
        """
        if self._params.revision is None:
            commit = self._newest() or "the commit that the data set's page on the hub shows"
            raise BadData(self._params.id, f"`revision` is not pinned; put {commit} into params.yaml.")
        for row in itertools.islice(self._all(), self._params.limit):
            progress(1)
            yield row

    def _all(self) -> Iterator[Row]:
        for split, theirs in self._params.splits.items():
            name = f"{self._params.id}/{theirs}"
            for number, row in enumerate(self._load(theirs)):
                yield {
                    **labelled(row, name=name, number=number, licence=self._params.licence),
                    "split": split,
                }

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
