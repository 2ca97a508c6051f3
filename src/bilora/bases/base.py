"""The interface of a frozen base model: where its files come from, and what identifies them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from bilora.bases.identity import folder_revision, model_file_hashes, model_folder
from bilora.bases.licence import MODEL_CARD, model_card_licence
from bilora.bases.loading import LoadedBase, count_parameters, load_model, load_tokenizer
from bilora.bases.precision import NUMBER_BYTES, Precision, resolve_dtype, resolve_quantize
from bilora.errors import BadData, BiloraError
from bilora.plugins import BASE_KINDS, NO_GGUF, BaseSettings, Dtype, Quantize, load_kind
from bilora.protocols import ProgressBars

if TYPE_CHECKING:
    from transformers import GenerationConfig, PretrainedConfig

    from bilora.bases.tokenizer import Tokenizer
    from bilora.params import Quantization

MAX_BUNDLED_MIB = 100
"""The maximum size of a base that is published with its adapters."""
_REASON_CHARS = 200

_S = TypeVar("_S", bound=BaseSettings)
Converter = Callable[["Base", "Quantization"], Path]
"""Converts a base's safetensors into a GGUF file."""


@dataclass(frozen=True, kw_only=True)
class Base(ABC):
    """A frozen causal language model.

    A kind of base implements `folder` and overrides other methods as needed.

    Attributes:
        id: its name in adapter_config.json and results.
        revision: its commit on the hub; None if its files identify it.
        hub: the public model that model cards name; None if the base is published with its adapters.
        dtype, quantize: as in params.yaml.
        settings: its entry in params.yaml; None if it was built without one.
    """

    id: str
    revision: str | None = None
    hub: str | None = None
    dtype: Dtype = "float32"
    quantize: Quantize | None = None
    settings: BaseSettings | None = None

    @abstractmethod
    def folder(self) -> Path:
        """Return the folder with its config, tokenizer and safetensors, downloaded first if needed."""

    @property
    def location(self) -> str:
        """The folder or hub id from which `from_pretrained` loads it, with `revision`.

        Raises:
            BadData: its folder has no model. (transformers would look up the path on the hub.)
        """
        return str(model_folder(self.folder(), self.id))

    @property
    def config_location(self) -> str:
        """The folder or hub id from which config and tokenizer are loaded if weights are not needed.

        Raises:
            BadData: its folder has no model.
        """
        return self.location

    @property
    def download_note(self) -> str | None:
        """What its first use downloads; None if nothing."""
        return None

    @property
    def precision(self) -> Precision:
        """The precision that `dtype` means on this machine; a short trial decides `auto`."""
        return resolve_dtype(self.dtype)

    @property
    def quantized(self) -> Literal["nf4"] | None:
        """The quantization that `quantize` means on this machine; the GPU's memory decides `auto`."""
        return resolve_quantize(self.quantize, lambda: count_parameters(self.config()) * NUMBER_BYTES[self.precision])

    @property
    def requirement(self) -> str | None:
        """The pip requirement, installed without dependencies, that contains the base; None if no package does."""
        return None

    @property
    def weights_note(self) -> str:
        """A sentence for model cards if the weights differ from those of `hub`; else empty."""
        return ""

    def licence(self) -> str:
        """Return the licence in its model card; `unknown` if there is none.

        Raises:
            Unreachable: the card could not be downloaded.
        """
        return model_card_licence(self.folder() / MODEL_CARD)

    def loading_code(self) -> list[str]:
        """Return the Python lines for model cards that load this base as `base` in `precision` with transformers.

        The lines follow `from transformers import AutoModelForCausalLM`, and `import torch` if they use it. A base
        without `hub` is loaded from its bundle.
        """
        pinned = f', revision="{self.revision}"' if self.revision else ""
        return [f'base = AutoModelForCausalLM.from_pretrained("{self.hub}"{pinned}, dtype="{self.precision}")']

    def fetch(self) -> None:
        """Download its missing files, for later use without a network.

        Raises:
            Unreachable: they could not be downloaded.
        """
        self.folder()

    def prepare(self, progress_bars: ProgressBars) -> None:  # noqa: B027 (most kinds need no preparation)
        """Prepare its folder with a progress bar; without this call, the first use does so without a bar.

        Raises:
            BadData, NotReady, Unreachable: see `folder`.
        """

    def files(self) -> dict[str, str]:
        """Return the SHA-256 of each file that determines the base's output; empty if a hub commit pins them.

        Raises:
            BadData: its folder has no model.
        """
        return model_file_hashes(self.folder(), self.id)

    @property
    def identity(self) -> str:
        """The hub commit, or the hash of its files, which are read at every access.

        Raises:
            BadData: its folder has no model.
        """
        return self.revision or folder_revision(self.files())

    def config(self) -> PretrainedConfig:
        """Load its config without loading or downloading weights.

        Raises:
            BadData, Unreachable: it cannot be read.
        """
        from transformers import AutoConfig

        with self._load_errors():
            return AutoConfig.from_pretrained(self.config_location, revision=self.revision)

    def generation_config(self) -> GenerationConfig:
        """Load its generation config, or derive it from the config if there is none.

        Raises:
            BadData, Unreachable: neither can be read.
        """
        from transformers import GenerationConfig

        try:
            return GenerationConfig.from_pretrained(self.config_location, revision=self.revision)
        except OSError:  # the file is optional
            return GenerationConfig.from_model_config(self.config())

    def tokenizer(self) -> Tokenizer:
        """Load its tokenizer.

        Raises:
            BadData: there is none, or its chat template cannot be used.
            Unreachable: it could not be downloaded.
        """
        with self._load_errors():
            return load_tokenizer(self.config_location, revision=self.revision, name=self.id)

    def load(self, *, training: bool) -> LoadedBase:
        """Load model and tokenizer.

        Args:
            training: whether to quantize the weights as `quantize` says; else they are in `precision`.

        Raises:
            BadData, NotReady: it cannot be loaded on this machine.
            Unreachable: it could not be downloaded.
        """
        with self._load_errors():
            model, mode = load_model(
                self.location,
                revision=self.revision,
                dtype=self.precision,
                quantize=self.quantized if training else None,
            )
        model.config.name_or_path = self.id
        return LoadedBase(model, self.tokenizer(), mode)

    def gguf(self, quantization: Quantization | None, convert: Converter) -> Path:
        """Return a GGUF file of the base.

        Args:
            quantization: of the file that `convert` writes; None for the GGUF file that the base comes with.

        Raises:
            BadData: `quantization` is None and the base comes with no GGUF file.
        """
        if quantization is None:
            raise BadData("inference", f"{NO_GGUF}.")
        return convert(self, quantization)

    def bundled_files(self) -> dict[str, bytes]:
        """Return the files (path → bytes) that are published with its adapters; none for a base with `hub`.

        Raises:
            BadData: they are larger than `MAX_BUNDLED_MIB`.
        """
        if self.hub is not None:
            return {}
        folder = self.folder()
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        if sum(path.stat().st_size for path in paths) > MAX_BUNDLED_MIB * 2**20:
            raise BadData(
                self.id,
                f"is above {MAX_BUNDLED_MIB} MiB, too large to be published with its adapters; use a base of kind hub.",
            )
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}

    def load_error(self, reason: str) -> BiloraError:
        """Return the error that says why the base cannot be loaded, and what to do."""
        return BadData(self.id, f"cannot be loaded ({reason}).")

    @contextmanager
    def _load_errors(self) -> Iterator[None]:
        """Raise `load_error` where transformers cannot read the files."""
        try:
            yield
        except (OSError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise self.load_error(reason[:_REASON_CHARS]) from None


@dataclass(frozen=True)
class BaseKind(Generic[_S]):
    """A kind of base: the type of its entry in params.yaml, and the function that builds the base.

    `build` takes the entry, the folder that its relative paths start from, and the folder for converted files. It reads
    no files and downloads nothing.
    """

    settings: type[_S]
    build: Callable[[_S, Path, Path], Base]


def open_base(settings: BaseSettings, root: Path, cache: Path | None = None) -> Base:
    """Return the base of an entry in params.yaml.

    Args:
        root: the folder that relative paths in the entry start from.
        cache: the folder for converted files; `root`/.cache/bases by default.
    """
    kind: BaseKind[BaseSettings] = load_kind(BASE_KINDS, settings.kind, "BASE")
    return replace(kind.build(settings, root, cache or root / ".cache" / "bases"), settings=settings)
