"""A base that comes as one GGUF file, whatever its kind."""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bilora.bases.base import Base, Converter
from bilora.bases.gguf_file import read_gguf
from bilora.bases.gguf_folder import PRECISION, conversion_identity, gguf_description, gguf_folder, is_converted
from bilora.bases.licence import UNKNOWN_LICENCE
from bilora.protocols import ProgressBars, no_bar

if TYPE_CHECKING:
    from bilora.params import Quantization


@dataclass(frozen=True, kw_only=True)
class GGUFBase(Base):
    """A base that is converted from a GGUF file once, into a folder of `cache`: see `bilora.bases.gguf_folder`."""

    cache: Path

    @abstractmethod
    def gguf_file(self) -> Path:
        """Return the file, after its hash was checked where params pin it."""

    @abstractmethod
    def gguf_sha256(self) -> str:
        """Return the SHA-256 of the file."""

    def folder(self) -> Path:
        """Return the folder of the converted files.

        Raises:
            BadData: the file cannot be converted.
        """
        return self._converted(no_bar)

    @property
    def description(self) -> str:
        """The converted folder if it is there, else one with configuration and tokenizer: no weight is de-quantised.

        Raises:
            BadData: the file cannot be converted.
        """
        folder = self.cache / self._conversion
        if not is_converted(folder):
            folder = gguf_description(self.cache / f"{self._conversion}-tokenizer", self.gguf_file)
        return str(folder)

    def fetch(self) -> None:
        """Download the file, if it is not here yet.

        Raises:
            Unreachable: it could not be fetched.
        """
        self.gguf_file()

    def prepare(self, progress_bars: ProgressBars) -> None:
        """Convert the file, if that has not been done."""
        self._converted(progress_bars)

    def gguf(self, quantization: Quantization | None, convert: Converter) -> Path:
        """Return the file as it is; what `convert` makes of the de-quantised weights if a quantization is named."""
        return self.gguf_file() if quantization is None else convert(self, quantization)

    def licence(self) -> str:
        """Return the licence that the file names; `unknown` if it names none.

        Raises:
            BadData, NotReady, Unreachable: the file cannot be read.
        """
        return str(read_gguf(self.gguf_file()).metadata.get("general.license") or UNKNOWN_LICENCE)

    def _load_call(self, arguments: str) -> str:
        """Return the line of Python that loads the file in `precision`; in float32 the weights are the folder's."""
        if self.precision == "float32":
            return f'base = AutoModelForCausalLM.from_pretrained({arguments}, dtype="{PRECISION}").to(torch.float32)'
        return f'base = AutoModelForCausalLM.from_pretrained({arguments}, dtype="{self.precision}")'

    def _dequantised(self, file: str, origin: str) -> str:
        """Return the sentence for cards on the weights: those of a file of this name, which is in `origin`."""
        quantization = re.search(r"[.-](I?Q\d\w*)\.gguf$", file)
        weights = f"{quantization[1]} weights" if quantization else "weights"
        return f"The adapter was trained on the de-quantised {weights} of {file} in {origin}."

    def _converted(self, progress_bars: ProgressBars) -> Path:
        return gguf_folder(self.cache / self._conversion, self.gguf_file, self.id, progress_bars)

    @property
    def _conversion(self) -> str:
        return conversion_identity(self.gguf_sha256())
