"""A frozen base model, whatever its kind: where its bytes come from, and what identifies them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from bilora.bases.identity import decisive_files, folder_revision, model_folder
from bilora.bases.licence import MODEL_CARD, model_card_licence
from bilora.bases.loading import LoadedBase, count_weights, load_model, load_tokenizer
from bilora.bases.precision import NUMBER_BYTES, Precision, resolve_dtype, resolve_quantize
from bilora.errors import BadData, BiloraError
from bilora.plugins import BASE_KINDS, NO_GGUF, BaseSettings, Dtype, Quantize, load_kind
from bilora.protocols import ProgressBars

if TYPE_CHECKING:
    from transformers import GenerationConfig, PretrainedConfig

    from bilora.bases.tokenizer import Tokenizer
    from bilora.params import Quantization

CARRIED_MIB = 100
"""A larger base is not published with its adapters."""
_REASON_CHARS = 200

_S = TypeVar("_S", bound=BaseSettings)
Converter = Callable[["Base", "Quantization"], Path]
"""Makes a GGUF file of a base's safetensors."""


@dataclass(frozen=True, kw_only=True)
class Base(ABC):
    """A frozen causal language model.

    A kind of base has to say in which `folder` its files are; what else it knows better than this class, it overrides.

    Attributes:
        id: how adapter_config.json and results name it.
        revision: its commit on the hub; None where its files identify it.
        hub: the public model that cards name; None if it is published with its adapters.
        dtype, quantize: as in params.yaml.
        settings: its entry in params.yaml, by which others open the same base; None if it was built without one.
    """

    id: str
    revision: str | None = None
    hub: str | None = None
    dtype: Dtype = "float32"
    quantize: Quantize | None = None
    settings: BaseSettings | None = None

    @abstractmethod
    def folder(self) -> Path:
        """Return the folder with its configuration, tokenizer and safetensors; it is fetched first if need be."""

    @property
    def location(self) -> str:
        """What `from_pretrained`, together with `revision`, loads it from: a folder or a hub id.

        Raises:
            BadData: there is no model in its folder, whose path the libraries would take for a hub id.
        """
        return str(model_folder(self.folder(), self.id))

    @property
    def description(self) -> str:
        """What its configuration and its tokenizer are loaded from, if weights are not needed: as `location`.

        Raises:
            BadData: there is no model in its folder.
        """
        return self.location

    @property
    def download(self) -> str | None:
        """What its first use fetches; None if nothing."""
        return None

    @property
    def precision(self) -> Precision:
        """What `dtype` means on this machine; `auto` is decided by a short trial."""
        return resolve_dtype(self.dtype)

    @property
    def quantized(self) -> Literal["nf4"] | None:
        """What `quantize` means on this machine; `auto` is decided by the GPU's memory."""
        return resolve_quantize(self.quantize, lambda: count_weights(self.config()) * NUMBER_BYTES[self.precision])

    @property
    def requirement(self) -> str | None:
        """What pip has to install, without its dependencies, to have the base; None if it is in no package."""
        return None

    @property
    def weights_note(self) -> str:
        """A sentence for cards on the weights that adapters are trained on; empty if they are the model's own."""
        return ""

    def licence(self) -> str:
        """Return the licence that its model card names; `unknown` if it names none.

        Raises:
            Unreachable: the card could not be fetched.
        """
        return model_card_licence(self.folder() / MODEL_CARD)

    def loading_code(self) -> list[str]:
        """Return the lines of Python by which others load just this base, named `base`, with transformers alone.

        It is loaded in `precision`. The lines follow `from transformers import AutoModelForCausalLM`, and `import
        torch` if they use it. A base without `hub` is loaded from its bundle.
        """
        pinned = f', revision="{self.revision}"' if self.revision else ""
        return [f'base = AutoModelForCausalLM.from_pretrained("{self.hub}"{pinned}, dtype="{self.precision}")']

    def fetch(self) -> None:
        """Download what is not here yet of its files, for later work without a network.

        Raises:
            Unreachable: it could not be fetched.
        """
        self.folder()

    def prepare(self, progress_bars: ProgressBars) -> None:  # noqa: B027 (not every kind has something to do)
        """Make its folder ready, which the first use does otherwise, without a bar; by default it is ready.

        Raises:
            BadData, NotReady, Unreachable: as `folder` does.
        """

    def files(self) -> dict[str, str]:
        """Return the SHA-256 of each file that decides how the base answers; of none if a hub commit pins them.

        Raises:
            BadData: there is no model in its folder.
        """
        return decisive_files(self.folder(), self.id)

    @property
    def identity(self) -> str:
        """What pins the base: the hub commit, or the hash of its files, which are read at every access.

        Raises:
            BadData: there is no model in its folder.
        """
        return self.revision or folder_revision(self.files())

    def config(self) -> PretrainedConfig:
        """Read its configuration; no weights are loaded or fetched.

        Raises:
            BadData, Unreachable: it cannot be read.
        """
        from transformers import AutoConfig

        with self._explained():
            return AutoConfig.from_pretrained(self.description, revision=self.revision)

    def generation_config(self) -> GenerationConfig:
        """Read its generation config, which is derived from its configuration if there is none.

        Raises:
            BadData, Unreachable: neither can be read.
        """
        from transformers import GenerationConfig

        try:
            return GenerationConfig.from_pretrained(self.description, revision=self.revision)
        except OSError:  # it is optional
            return GenerationConfig.from_model_config(self.config())

    def tokenizer(self) -> Tokenizer:
        """Load its tokenizer.

        Raises:
            BadData: there is none, or its chat template cannot be used.
            Unreachable: it could not be fetched.
        """
        with self._explained():
            return load_tokenizer(self.description, revision=self.revision, name=self.id)

    def load(self, *, training: bool) -> LoadedBase:
        """Load model and tokenizer.

        Args:
            training: load the copy to train on, quantized as `quantize` says; else the one to answer, in `precision`.

        Raises:
            BadData, NotReady: it cannot be loaded on this machine.
            Unreachable: it could not be fetched.
        """
        with self._explained():
            model, mode = load_model(
                self.location,
                revision=self.revision,
                dtype=self.precision,
                quantize=self.quantized if training else None,
            )
        model.config.name_or_path = self.id
        return LoadedBase(model, self.tokenizer(), mode)

    def gguf(self, quantization: Quantization | None, convert: Converter) -> Path:
        """Return the base as a GGUF file: what `convert` makes; None for the file that the base comes with.

        Raises:
            BadData: it comes with none, so a quantization must be named.
        """
        if quantization is None:
            raise BadData("inference", f"{NO_GGUF}.")
        return convert(self, quantization)

    def carried(self) -> dict[str, bytes]:
        """Return the files that are published with its adapters, which are worth nothing without them.

        Raises:
            BadData: it is too large for that.
        """
        if self.hub is not None:
            return {}
        folder = self.folder()
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        if sum(path.stat().st_size for path in paths) > CARRIED_MIB * 2**20:
            raise BadData(
                self.id,
                f"is above {CARRIED_MIB} MiB, too large to be published with its adapters; use a base of kind hub.",
            )
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}

    def unreadable(self, reason: str) -> BiloraError:
        """Return the error that says why the base cannot be loaded, and what to do."""
        return BadData(self.id, f"cannot be loaded ({reason}).")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what transformers raises for files that it cannot read into one sentence."""
        try:
            yield
        except (OSError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise self.unreadable(reason[:_REASON_CHARS]) from None


@dataclass(frozen=True)
class BaseKind(Generic[_S]):
    """A kind of base: the type of its entry in params.yaml, and how a base is built from such an entry.

    `build` also gets the folder that relative paths in the entry start from, and the folder for converted files. It
    reads and fetches nothing.
    """

    settings: type[_S]
    build: Callable[[_S, Path, Path], Base]


def open_base(settings: BaseSettings, root: Path, cache: Path | None = None) -> Base:
    """Return the base that an entry of params.yaml describes.

    Args:
        root: the folder that relative paths in the entry start from.
        cache: the folder for converted files; `root`/.cache/bases by default.
    """
    kind: BaseKind[BaseSettings] = load_kind(BASE_KINDS, settings.kind, "BASE")
    return replace(kind.build(settings, root, cache or root / ".cache" / "bases"), settings=settings)
