"""The public entry point to published adapters: open a bundle, generate with every adapter of it."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self, Unpack

from pydantic import ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from bilora.bases.base import open_base
from bilora.errors import BadData, UnknownModel
from bilora.inference.engine import BASE_SYSTEM
from bilora.inference.engines import EngineOptions, LocalEngine, load_local_engine
from bilora.library_logs import silence_libraries
from bilora.params import Quantization
from bilora.plugin_settings import AnyBase
from bilora.publishing.manifest import BundledSampling, Manifest
from bilora.publishing.published import bundled_adapters, fetch_bundle
from bilora.records import Completion, Message
from bilora.requests import Request, SamplingParams
from bilora.storage import first_fault
from bilora.tasks import load_task

if TYPE_CHECKING:
    from bilora.bases.base import Base

_DEFAULT_SAMPLING = BundledSampling(max_tokens=512, temperature=0.0, frequency_penalty=0.0)
"""Sampling parameters of the base, and of adapters in bundles that record none."""


@with_config(ConfigDict(extra="forbid"))
class SamplingOptions(TypedDict, total=False):
    """Sampling parameters of a request; see `bilora.requests.SamplingParams`."""

    max_tokens: Annotated[int, Field(ge=1)]
    temperature: Annotated[FiniteFloat, Field(ge=0.0)]
    top_p: Annotated[FiniteFloat, Field(ge=0.0, le=1.0)]
    top_k: Annotated[int, Field(ge=0)]
    min_p: Annotated[FiniteFloat, Field(ge=0.0, le=1.0)]
    seed: Annotated[int, Field(ge=0)]
    stop: tuple[str, ...]
    frequency_penalty: FiniteFloat
    presence_penalty: FiniteFloat
    json_schema: str


class Bundle:
    """Published adapters and their base model, loaded into one engine; open one with `Bundle.open`.

    All methods raise a BiloraError whose sentence says what to do.
    """

    def __init__(self, engine: LocalEngine, manifest: Manifest) -> None:
        """Take an engine that has loaded the base and the adapters of a manifest."""
        self._engine, self._manifest = engine, manifest

    @classmethod
    def open(
        cls,
        location: str | Path,
        *,
        base: Mapping[str, object] | None = None,
        engine: Literal["torch", "llamacpp"] = "torch",
        quantization: Quantization | None = None,
        batch_size: int = 8,
        cache: Path | None = None,
    ) -> Self:
        """Load a bundle's base and adapters, after every file was checked against the manifest.

        Args:
            location: a bundle's folder, the folder or URL that `bilora push-adapters` publishes into, or a hub id
                with a commit, `owner/name@commit`.
            base: an entry for `base` as in params.yaml, such as {"kind": "folder", "path": …}; by default the one
                that the manifest records. It has to be the base that the adapters were trained on.
            engine, quantization: as `inference` in params.yaml.
            batch_size: sequences that are decoded at a time.
            cache: the folder for fetched bundles and converted base models; `~/.cache/bilora` by default.

        Raises:
            BadData: it is no bundle, is damaged, or its adapters were trained on another base.
            NotReady: the base or the engine is not installed, or memory is too small.
            Unreachable: the hub or the URL did not answer.
        """
        cache = cache or _user_cache()
        folder, manifest = fetch_bundle(str(location), cache_dir=cache / "bundles")
        model = _open_base(folder, manifest, base, cache)
        adapters = bundled_adapters(folder, manifest, model)
        silence_libraries()
        options = EngineOptions(batch_size=batch_size, cache=cache / "gguf", quantization=quantization)
        return cls(load_local_engine(engine, model, adapters, options), manifest)

    @property
    def adapters(self) -> list[str]:
        """The names of the adapters, sorted."""
        return sorted(self._manifest.adapters)

    @property
    def base_id(self) -> str:
        """The name of the base model."""
        return str(self._manifest.base.id)

    def generate(self, model: str, prompt: str, **sampling: Unpack[SamplingOptions]) -> Completion:
        """Return the completion of one prompt.

        Args:
            model: an adapter's name, or "base".
            prompt: the question; the adapter's system message and the chat template are added.
            sampling: sampling parameters; those that are not given are the ones the adapter was measured with.

        Raises:
            UnknownModel: the bundle has no such adapter.
            BadData: the prompt is empty or longer than the context, or a sampling parameter cannot be used.
        """
        return self.generate_batch(model, [prompt], **sampling)[0]

    def generate_batch(
        self, model: str, prompts: Sequence[str], **sampling: Unpack[SamplingOptions]
    ) -> list[Completion]:
        """Return the completions of several prompts, in their order; see `generate`."""
        params = self._sampling(model, sampling)
        requests = [_request(model, prompt, params, index) for index, prompt in enumerate(prompts)]
        return self._engine.generate(model, requests)

    def stream(self, model: str, prompt: str, **sampling: Unpack[SamplingOptions]) -> Generator[str, None, Completion]:
        """Yield the text of one completion while it is generated; see `generate`."""
        return self._engine.stream(model, _request(model, prompt, self._sampling(model, sampling), 0))

    def _sampling(self, model: str, options: SamplingOptions) -> SamplingParams:
        """Return the sampling parameters of a request; what it leaves open is as the adapter was measured."""
        if model != BASE_SYSTEM and model not in self._manifest.adapters:
            raise UnknownModel(model, (BASE_SYSTEM, *self.adapters))
        adapter = self._manifest.adapters.get(model)
        try:
            checked = TypeAdapter(SamplingOptions).validate_python(options)
        except ValidationError as error:
            raise BadData("sampling parameters", f"{first_fault(error)}.") from None
        measured = (adapter and adapter.sampling) or _DEFAULT_SAMPLING
        return replace(measured.to_params(), **checked)


def _request(model: str, prompt: str, sampling: SamplingParams, index: int) -> Request:
    """Return the request that asks an adapter as it was measured, or the base without a system message."""
    if not prompt.strip():
        raise BadData("prompt", "it is empty.")
    if model == BASE_SYSTEM:
        return Request(str(index), (Message(role="user", content=prompt.strip()),), sampling)
    task = load_task(model)
    return Request(str(index), task.messages(task.make_prompt(prompt)), sampling)


def _open_base(folder: Path, manifest: Manifest, entry: Mapping[str, object] | None, cache: Path) -> Base:
    """Return the base that an entry of params.yaml describes, by default the one in the manifest."""
    bundled = manifest.base
    chosen: Mapping[str, object] | None = entry or bundled.settings
    if chosen is None:
        raise BadData(
            folder,
            f"the bundle does not record how to open its base {bundled.id}; name it, "
            'such as base={"kind": "hub", "id": "owner/name", "revision": "COMMIT"}.',
        )
    try:
        settings = TypeAdapter(AnyBase).validate_python(chosen)
    except ValidationError as error:
        raise BadData("base", f"is no entry of a base as in params.yaml ({first_fault(error)}).") from None
    if entry is None and settings.kind == "folder" and chosen.get("path") != bundled.path:
        raise BadData(folder, "the manifest names a base outside the bundle; give base= if you trust it.")
    root = Path() if entry else folder
    model = open_base(settings, root, cache / "bases")
    # A base in a folder is named after its path, which is another one on every machine.
    return replace(model, id=str(bundled.id)) if settings.kind == "folder" else model


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bilora"
