"""A base in a GGUF file."""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bilora.bases.base import Base, Converter
from bilora.bases.gguf_conversion import (
    STORED_PRECISION,
    conversion_identity,
    convert_gguf,
    convert_gguf_without_weights,
    is_converted,
)
from bilora.bases.gguf_file import read_gguf
from bilora.bases.licence import UNKNOWN_LICENCE
from bilora.protocols import ProgressBars, no_bar

if TYPE_CHECKING:
    from bilora.params import Quantization


@dataclass(frozen=True, kw_only=True)
class GGUFBase(Base):
    """A base in a GGUF file, converted once into a folder of `cache`: see `bilora.bases.gguf_conversion`."""

    cache: Path

    @abstractmethod
    def gguf_file(self) -> Path:
        """Return the file, downloaded first if needed, after checking its hash if params pin it."""

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
    def config_location(self) -> str:
        """The converted folder if it exists, else a folder with config and tokenizer, without de-quantised weights.

        Raises:
            BadData: the file cannot be converted.
        """
        folder = self.cache / self._conversion_id
        if not is_converted(folder):
            folder = convert_gguf_without_weights(self.cache / f"{self._conversion_id}-tokenizer", self.gguf_file)
        return str(folder)

    def fetch(self) -> None:
        """Download the file if it is missing.

        Raises:
            Unreachable: it could not be downloaded.
        """
        self.gguf_file()

    def prepare(self, progress_bars: ProgressBars) -> None:
        """Convert the file if that has not been done."""
        self._converted(progress_bars)

    def gguf(self, quantization: Quantization | None, convert: Converter) -> Path:
        """Return the file itself; with a quantization, the file that `convert` writes from the de-quantised weights."""
        return self.gguf_file() if quantization is None else convert(self, quantization)

    def licence(self) -> str:
        """Return the licence in the file's metadata; `unknown` if there is none.

        Raises:
            BadData, NotReady, Unreachable: the file cannot be read.
        """
        return str(read_gguf(self.gguf_file()).metadata.get("general.license") or UNKNOWN_LICENCE)

    def _load_call(self, arguments: str) -> str:
        """Return the Python line that loads the file in `precision`."""
        load = f"base = AutoModelForCausalLM.from_pretrained({arguments}"
        if self.precision == "float32":  # from bfloat16, as in the converted folder
            return f'{load}, dtype="{STORED_PRECISION}").to(torch.float32)'
        return f'{load}, dtype="{self.precision}")'

    def _dequantised_note(self, file: str, origin: str) -> str:
        """Return the sentence for model cards on the weights of `file`, which is in `origin`."""
        quantization = re.search(r"[.-](I?Q\d\w*)\.gguf$", file)
        weights = f"{quantization[1]} weights" if quantization else "weights"
        return f"The adapter was trained on the de-quantised {weights} of {file} in {origin}."

    def _converted(self, progress_bars: ProgressBars) -> Path:
        return convert_gguf(self.cache / self._conversion_id, self.gguf_file, self.id, progress_bars)

    @property
    def _conversion_id(self) -> str:
        return conversion_identity(self.gguf_sha256())
