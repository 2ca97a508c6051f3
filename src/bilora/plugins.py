"""The open axes: bases, sources and training phases come in kinds, each a module of one package, found by its name.

A new kind is one new module; no other file lists them. The module defines one constant (`BASE`, `SOURCE`, `PHASE`)
whose `settings` is the type of its entry in params.yaml.
"""

from __future__ import annotations

import pkgutil
import re
from importlib import import_module
from typing import Annotated, Any, ClassVar, Literal, Union, get_args

from pydantic import AfterValidator, Field

from bilora.errors import BadData
from bilora.yaml_settings import Settings

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantize = Literal["nf4", "auto"]
BASE_KINDS = "bilora.bases.kinds"
SOURCE_KINDS = "bilora.sources.kinds"
PHASE_KINDS = "bilora.training.phases"
"""The packages of the kinds, whose modules each define a `BASE`, `SOURCE` or `PHASE`."""

NO_GGUF = "this base comes with no GGUF file, so engine llamacpp needs a quantization: f32, f16, q8_0 or q4_k_m"


def is_commit(revision: str) -> bool:
    """Return whether a revision of a hub repository is a commit, which never changes; branches and tags may."""
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def _pinned(revision: str) -> str:
    if not is_commit(revision):
        raise ValueError("it is not pinned to a commit: run `bilora pin`, which writes the newest one")
    return revision


Commit = Annotated[str, AfterValidator(_pinned)]
"""A revision of a hub repository: the 40 hexadecimal digits of a commit."""


class KindSettings(Settings):
    """What every entry of an open axis has: its `kind`, which a subclass narrows to one `Literal`."""

    kind: str


class BaseSettings(KindSettings):
    """The frozen base model, whatever its kind.

    `dtype` is the precision of its weights; `auto` is bfloat16 where this machine multiplies it natively, else float32.
    `quantize: nf4` trains on a 4-bit copy (CUDA only), `auto` where a GPU has little memory for the weights.
    """

    dtype: Dtype = "float32"
    quantize: Quantize | None = None

    @property
    def has_gguf(self) -> bool:
        """Whether the base comes with a GGUF file, which llama.cpp serves as it is."""
        return False


class SourceSettings(KindSettings):
    """Where a task's rows come from, whatever the kind of source."""


class PhaseSettings(KindSettings):
    """One training algorithm's entry under `training.phases`, whatever its kind: the numbers of its optimiser.

    Each of its `steps` reads `accumulation` batches of `batch_size` rows. The learning rate rises over the share
    `warmup` of the steps, then falls as a cosine does. Gradients are clipped to the norm `clip`.
    """

    pairs: ClassVar[Literal["kto", "dpo"] | None] = None
    """Which rated pairs the phase trains on, by the name under which `split.preference` selects them."""
    starts_fresh: ClassVar[bool] = False
    """Whether the phase can be the first of a run, with an adapter that has learnt nothing yet."""

    steps: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    accumulation: Annotated[int, Field(ge=1)] = 1
    learning_rate: Annotated[float, Field(gt=0.0)]
    warmup: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    clip: Annotated[float, Field(gt=0.0)] = 1.0


def kind_names(package: str) -> list[str]:
    """Return the names of the kinds in `package`, sorted; each is the name of a module."""
    return sorted(module.name for module in pkgutil.iter_modules(import_module(package).__path__))


def load_kind(package: str, name: str, constant: str) -> Any:
    """Return what the module `name` of `package` defines as `constant`.

    Raises:
        KeyError: there is no such kind.
    """
    if name not in kind_names(package):
        raise KeyError(name)
    return getattr(import_module(f"{package}.{name}"), constant)


def settings_of(package: str, constant: str, parent: type[KindSettings]) -> Any:
    """Return the type of an entry of any kind in `package`, for a field of params: the union of all settings.

    Raises:
        BadData: a module of the package is no kind; the module is named, with what it lacks.
    """
    types = tuple(_settings(package, name, constant, parent) for name in kind_names(package))
    return types[0] if len(types) == 1 else Annotated[Union[types], Field(discriminator="kind")]  # noqa: UP007


def _settings(package: str, name: str, constant: str, parent: type[KindSettings]) -> type[KindSettings]:
    """Return the settings of one kind, checked as far as params need them."""
    module = f"{package}.{name}"
    try:
        settings = getattr(load_kind(package, name, constant), "settings", None)
    except (ImportError, AttributeError, SyntaxError) as error:
        hint = "; a kind must not import bilora.params, which is built from it" if "circular" in str(error) else ""
        raise BadData(module, f"this kind cannot be loaded ({error}){hint}.") from error
    if not (isinstance(settings, type) and issubclass(settings, parent)):
        raise BadData(module, f"{constant}.settings must be a subclass of {parent.__name__}.")
    if get_args(settings.model_fields["kind"].annotation) != (name,):
        raise BadData(module, f'{settings.__name__} must have the field `kind: Literal["{name}"]`.')
    return settings
