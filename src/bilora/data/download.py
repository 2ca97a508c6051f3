"""data-download: write a source's rows to one file."""

from __future__ import annotations

from pathlib import Path

from bilora.errors import BadData
from bilora.protocols import Progress, Source, no_progress
from bilora.storage import atomic, write_rows


def download(source: Source, path: Path, *, progress: Progress = no_progress) -> int:
    """Write all rows of `source` to `path` as JSON lines, atomically; return their number.

    Raises:
        BadData: the source has no rows, or a row that JSON cannot represent.
    """
    with atomic(path) as temporary:
        try:
            count = write_rows(temporary, source.rows(progress=progress))
        except (TypeError, ValueError) as error:
            raise BadData(path, f"the source returned a row that is not JSON ({error}).") from None
        if count == 0:
            raise BadData(path, "the source has no rows; check `source` in params.yaml.")
    return count
