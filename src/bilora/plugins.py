"""Plugins: each kind of base, source and training phase is one module, loaded by its name.

Adding a kind takes one new module. It defines one constant (`BASE`, `SOURCE` or `PHASE`), whose `settings` is the type
of its entry in params.yaml.
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
"""The packages of the plugins; each of their modules defines `BASE`, `SOURCE` or `PHASE`."""

NO_GGUF = "this base has no GGUF file, so engine llamacpp needs a quantization: f32, f16, q8_0 or q4_k_m"


def is_commit(revision: str) -> bool:
    """Return whether a hub revision is a commit; branches and tags may change."""
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def _require_commit(revision: str) -> str:
    if not is_commit(revision):
        raise ValueError("it is not pinned to a commit: run `bilora pin`, which writes the newest one")
    return revision


Commit = Annotated[str, AfterValidator(_require_commit)]
"""A revision of a hub repository: the 40 hexadecimal digits of a commit."""


class KindSettings(Settings):
    """Base of all entries with a `kind`, which each subclass narrows to one `Literal`."""

    kind: str


class BaseSettings(KindSettings):
    """The frozen base model, of any kind."""

    dtype: Dtype = Field(
        default="float32",
        description="precision of the weights; `auto` is bfloat16 if this machine multiplies it natively, else float32",
    )
    quantize: Quantize | None = Field(
        default=None,
        description="`nf4` trains on a 4-bit copy (CUDA only), `auto` if the GPU has little memory for it",
    )

    @property
    def has_gguf(self) -> bool:
        """Whether the base has a GGUF file, which llama.cpp serves unchanged."""
        return False


class SourceSettings(KindSettings):
    """The source of a task's rows, of any kind."""


class PhaseSettings(KindSettings):
    """One entry under `training.phases`, of any kind: the hyperparameters of its optimizer."""

    pairs: ClassVar[Literal["kto", "dpo"] | None] = None
    """The rated pairs that the phase trains on, as `split.preference` names them."""
    starts_fresh: ClassVar[bool] = False
    """Whether the phase can train a newly initialized adapter, and so be the first of a run."""

    steps: int = Field(ge=1, description="optimizer steps")
    batch_size: int = Field(ge=1, description="rows per batch")
    accumulation: int = Field(default=1, ge=1, description="batches per step")
    learning_rate: float = Field(gt=0.0, description="the highest learning rate; a cosine decays it to 0")
    warmup: float = Field(
        default=0.05, ge=0.0, lt=1.0, description="share of the steps in which the learning rate rises"
    )
    clip: float = Field(default=1.0, gt=0.0, description="norm to which gradients are clipped")


def kind_names(package: str) -> list[str]:
    """Return the names of the modules in `package`, sorted; each is a kind."""
    return sorted(module.name for module in pkgutil.iter_modules(import_module(package).__path__))


def load_kind(package: str, name: str, constant: str) -> Any:
    """Return the value of `constant` in the module `name` of `package`.

    Raises:
        KeyError: there is no such module.
    """
    if name not in kind_names(package):
        raise KeyError(name)
    return getattr(import_module(f"{package}.{name}"), constant)


def settings_union(package: str, constant: str, parent: type[KindSettings]) -> Any:
    """Return the union of the settings of all kinds in `package`, as the type of a field of params.

    Raises:
        BadData: a module of the package does not define a valid kind.
    """
    types = tuple(_settings(package, name, constant, parent) for name in kind_names(package))
    return types[0] if len(types) == 1 else Annotated[Union[types], Field(discriminator="kind")]  # noqa: UP007


def _settings(package: str, name: str, constant: str, parent: type[KindSettings]) -> type[KindSettings]:
    """Return the checked settings type of one kind."""
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
